import { expect } from 'chai'
import { RedisIdempotencyStore } from '../../lib/index.ts'
import { startChild } from '../support/child.ts'
import { eventually } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'
import { all, Bench, REDIS_URL } from './support.ts'

const KILLS = 20
const LETTERS = 1_000
/** So many letters more does a child tell of, at most, before it is killed. */
const AHEAD = 20

describe('dead letters: a crash in the middle of sending again', function () {
  this.timeout(600_000)

  it(`loses nothing and runs nothing twice, over ${KILLS} kills at any point`, async () => {
    await using bench = await Bench.open('crash')
    const prefix = unique('crash')
    const store = new RedisIdempotencyStore({ url: REDIS_URL }, { prefix })
    const runs = new Map<string, number>()
    const consumer = await bench.consume(
      ({ messageId }, { generation }) => {
        if (generation === 0) throw new Error('not yet')
        const run = `${messageId}#${generation}`
        runs.set(run, (runs.get(run) ?? 0) + 1)
      },
      { idempotency: store, concurrency: 50 },
    )
    const producer = bench.surehop.producer()
    const sends = Array.from({ length: LETTERS }, (_, i) =>
      producer.send(bench.queue, { body: { i }, messageId: `m-${i}` }),
    )
    await Promise.all(sends)
    await bench.holds(LETTERS)

    let midway = 0
    for (let kill = 0; kill < KILLS; kill++) {
      const at = kill === 0 ? 'ready' : Math.floor(Math.random() * (LETTERS / KILLS)) + 1
      const most = at === 'ready' ? 0 : at + AHEAD
      const args = [bench.queue, REDIS_URL, prefix, `${most}`]
      const child = startChild(new URL('./replayer.ts', import.meta.url), { args })
      const seen = await child.next({ where: (message) => message === at || message === 'done', withinMs: 30_000 })
      await child.kill9()
      if (seen !== 'done') midway++
      await unlocked(bench)
    }
    expect(midway).to.be.greaterThan(KILLS / 2)

    await eventually(
      async () => {
        await bench.letters(store).replay({}, { perSecond: 0, watch: false })
        if (runs.size < LETTERS) throw new Error(`${runs.size} ran`)
      },
      { what: 'every message to run', withinMs: 30_000 },
    )
    const ids = new Set([...runs.keys()].map((run) => run.split('#')[0]))
    expect(ids.size, 'messages that ran').to.equal(LETTERS)
    expect(
      [...runs.values()].every((count) => count === 1),
      'each generation ran once',
    ).to.equal(true)
    expect(runs.size, 'each message ran in one generation').to.equal(LETTERS)
    const left = await all(bench.letters(store).list())
    const dry = await bench.letters(store).replay({}, { dryRun: true })
    expect(dry).to.include({ replayed: 0, skipped: left.length })
    await consumer.close()
    await store.close()
  })
})

/** The broker has noticed the end of the killed process. */
async function unlocked(bench: Bench): Promise<void> {
  await eventually(() => all(bench.letters().list({ limit: 1 })), { what: 'the lock to be free' })
}

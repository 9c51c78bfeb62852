// A look that cannot go on, or shall not, ends.

import { expect } from 'chai'
import { BrokerTimeout } from '../../lib/index.ts'
import { uniqueQueue } from '../support/unique.ts'
import { all, Bench } from './support.ts'

const REASON = new Error('enough')
/** So much faster does the clock of the test go. */
const SPEED = 20

describe('dead letters: the end of a look', function () {
  this.timeout(60_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open()
  })
  afterEach(() => bench.close())

  /** Dead letters of which the broker gives none, since another consumer is the single active one. */
  async function givingNone() {
    const queue = uniqueQueue('single-active')
    const dead = `${queue}.dead`
    const args = { 'x-queue-type': 'quorum', 'x-single-active-consumer': true }
    await bench.channel.assertQueue(dead, { durable: true, arguments: args })
    await bench.channel.prefetch(1)
    await bench.channel.consume(dead, () => {})
    for (let i = 0; i < 3; i++) bench.put(dead, { i })
    await bench.confirmed()
    await bench.holds(2, dead)
    return bench.surehop.deadLetters(queue)
  }

  it('ends half a minute after the last letter where the broker has some and gives none, and says what may be the cause', async () => {
    const letters = await givingNone()
    const real = performance.now
    performance.now = () => SPEED * real.call(performance)
    try {
      const error = await all(letters.list()).catch((failure: unknown) => failure)
      expect(error).to.be.instanceOf(BrokerTimeout)
      expect((error as Error).message).to.match(/has given none for 30 s\. .*single active.*stream/)
      const result = await letters.replay({}, { perSecond: 0 })
      expect(result).to.include({ seen: 0, replayed: 0, stopped: 'unreachable' })
      expect(result.error).to.be.instanceOf(BrokerTimeout)
    } finally {
      performance.now = real
    }
  })

  it('ends at once when its signal fires, also where nothing comes or nothing matches', async () => {
    const letters = await givingNone()
    const looks: ((signal: AbortSignal) => Promise<unknown>)[] = [
      (signal) => all(letters.list({ where: 'type=nothing' }, { signal })),
      (signal) => letters.groups({}, { signal }),
      (signal) => letters.show('nobody', { signal }),
      (signal) => all(letters.exportTo({}, { signal })),
    ]
    for (const look of looks) {
      const error = interrupted(look).catch((failure: unknown) => failure)
      expect(await error).to.equal(REASON)
    }
    const sendings: ((signal: AbortSignal) => Promise<object>)[] = [
      (signal) => letters.discard({}, { dryRun: true, signal }),
      (signal) => letters.replay({}, { dryRun: true, signal }),
    ]
    for (const sending of sendings) {
      const result = await interrupted(sending)
      expect(result).to.include({ seen: 0, stopped: 'interrupted', error: undefined })
    }
  })

  it('gives no letter once its signal has fired, and gives all back in their order', async () => {
    await bench.bury(300)
    const stop = new AbortController()
    const seen: string[] = []
    const look = async () => {
      for await (const { id } of bench.letters().list({}, { signal: stop.signal }))
        if (seen.push(id) === 100) stop.abort(REASON)
    }
    expect(await look().catch((failure: unknown) => failure)).to.equal(REASON)
    expect(seen).to.have.length(100)
    const after = (await all(bench.letters().list())).map(({ id }) => id)
    expect(after).to.deep.equal(Array.from({ length: 300 }, (_, i) => `m-${i}`))
  })
})

/** Runs something with a signal that fires as soon as it is waited for. */
async function interrupted<T>(run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController()
  const { signal } = stop
  signal.addEventListener = (...args: Parameters<AbortSignal['addEventListener']>) => {
    EventTarget.prototype.addEventListener.apply(signal, args)
    setImmediate(() => stop.abort(REASON))
  }
  return run(signal)
}

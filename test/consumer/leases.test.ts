// Processes that die, freeze and leave: who runs their messages then, when, and what the late ones can still do.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { HEADER } from '../../lib/index.ts'
import { type Child, startChild } from '../support/child.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import type { WorkerSettings } from './fixtures/worker.ts'
import { amqpUrl, closeAll, connected, event, inbox, nothingLeft, redisUrl, Tally, taken, toClose } from './setup.ts'

const WORKER = new URL('./fixtures/worker.ts', import.meta.url)

interface Started {
  readonly starts: string
  readonly token: number
}

function worker(settings: Partial<WorkerSettings> & Pick<WorkerSettings, 'queue' | 'prefix' | 'does'>): Child {
  const all: WorkerSettings = { leaseMs: 1_500, amqp: amqpUrl(), redis: redisUrl(), ...settings }
  return toClose(startChild(WORKER, { args: [JSON.stringify(all)] }))
}

const ready = (child: Child) => child.next({ where: (message) => message === 'ready', withinMs: 20_000 })
const started = (child: Child) =>
  child.next<never>({
    where: (message: { starts?: string }) => message?.starts !== undefined,
    withinMs: 20_000,
  }) as Promise<Started>
const says = (child: Child, what: string) =>
  child.next({ where: (message) => JSON.stringify(message).includes(what), withinMs: 20_000 })

describe('consumer: leases over processes', function () {
  this.timeout(90_000)
  afterEach(closeAll)

  it('takes the message of a killed process over within a few lease times, not half a minute, with a greater token', async () => {
    const [queue, prefix, messageId] = [uniqueQueue(), unique('inbox'), v7()]
    const victim = worker({ queue, prefix, does: 'hold' })
    await ready(victim)
    const surehop = await connected()
    await surehop.producer().send(queue, { messageId, body: {} })
    const { token } = await started(victim)
    const runs = new Tally<{ token: number; attempt: number; at: number }>()
    const heir = await connected()
    await heir.consume(
      queue,
      { idempotency: inbox(prefix), leaseMs: 1_500 },
      (_, { fencingToken, attempt }) => void runs.add({ token: fencingToken!, attempt, at: performance.now() }),
    )
    const killedAt = performance.now()
    await victim.kill9()
    const [run] = await runs.reaches(1)
    expect(run!.at - killedAt).to.be.below(4_000)
    expect(run!.token).to.be.above(token)
    expect(run!.attempt).to.equal(1)
    await nothingLeft(queue)
  })

  it('hands the leases of a process that closes on at once', async () => {
    const [queue, prefix] = [uniqueQueue(), unique('inbox')]
    const leaver = worker({ queue, prefix, does: 'hold', leaseMs: 60_000 })
    await ready(leaver)
    const surehop = await connected()
    await surehop.producer().send(queue, { body: {} })
    await started(leaver)
    const runs = new Tally<number>()
    await surehop.consume(
      queue,
      { idempotency: inbox(prefix), leaseMs: 60_000 },
      () => void runs.add(performance.now()),
    )
    leaver.send('close')
    await says(leaver, '"signal":"Closed"')
    await runs.reaches(1)
  })

  // A zombie: frozen longer than its lease, it must learn of it and can record nothing.
  it('lets a process that was frozen change nothing when it wakes, and fires its signal', async () => {
    const [queue, prefix, messageId] = [uniqueQueue(), unique('inbox'), v7()]
    const zombie = worker({ queue, prefix, does: 'hold' })
    await ready(zombie)
    const surehop = await connected()
    await surehop.producer().send(queue, { messageId, body: {} })
    await started(zombie)
    process.kill(zombie.pid, 'SIGSTOP')
    const completed = event('message.completed', (data) => data.queue === queue, 30_000)
    const heir = await connected()
    const store = inbox(prefix)
    await heir.consume(queue, { idempotency: store, leaseMs: 1_500 }, () => {})
    await surehop.producer().send(queue, { messageId, body: {} })
    await completed
    const scope = { name: queue, retentionMs: 1, leaseMs: 1_500, maxStarts: 3 }
    const [before] = await store.look(scope, [messageId])
    process.kill(zombie.pid, 'SIGCONT')
    await says(zombie, '"signal":"LeaseLost"')
    zombie.send('finish')
    await says(zombie, '"ends"')
    await says(zombie, 'message.completed')
    const [after] = await store.look(scope, [messageId])
    expect(after).to.deep.equal(before)
    expect(after!.state).to.equal('completed')
    await nothingLeft(queue)
  })

  it('parks a message whose handler was started three times without an end, with that reason', async () => {
    const [queue, prefix, messageId] = [uniqueQueue(), unique('inbox'), v7()]
    const surehop = await connected()
    for (let death = 0; death < 3; death++) {
      const victim = worker({ queue, prefix, does: 'die', leaseMs: 600 })
      if (death === 0) {
        await ready(victim)
        await surehop.producer().send(queue, { messageId, body: {} })
      }
      expect((await victim.ended).signal).to.equal('SIGKILL')
    }
    let runs = 0
    await surehop.consume(queue, { idempotency: inbox(prefix), leaseMs: 600 }, () => void runs++)
    const [letter] = await taken(`${queue}.dead`)
    expect(letter!.properties.headers).to.include({
      [HEADER.reason]: 'started 3 times without an end',
      [HEADER.errorType]: 'LeaseLost',
    })
    expect(letter!.properties.messageId).to.equal(messageId)
    expect(runs).to.equal(0)
  })
})

describe('consumer: closing a process', function () {
  this.timeout(90_000)
  afterEach(closeAll)

  // P18: cancel, drain, close; and nothing keeps the process.
  it('ends by itself after close(): no timer and no socket keeps it', async () => {
    const child = worker({ queue: uniqueQueue(), prefix: unique('inbox'), does: 1 })
    await ready(child)
    child.send('close')
    const { closedAfterMs } = (await child.next<never>({
      where: (m: { closedAfterMs?: number }) => m?.closedAfterMs !== undefined,
    })) as { closedAfterMs: number }
    expect(closedAfterMs).to.be.below(10_000)
    expect(await child.ended).to.deep.equal({ code: 0, signal: null })
  })

  it('ends by itself after close() with a handler that never ends', async () => {
    const queue = uniqueQueue()
    const child = worker({ queue, prefix: unique('inbox'), does: 'hold' })
    await ready(child)
    await (await connected()).producer().send(queue, { body: {} })
    await started(child)
    child.send('close')
    await says(child, '"signal":"Closed"')
    expect(await child.ended).to.deep.equal({ code: 0, signal: null })
    await taken(queue)
  })
})

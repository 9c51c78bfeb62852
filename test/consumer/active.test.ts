// One attempt: how it ends, when its signal fires, and what becomes of what its handler publishes.

import { expect } from 'chai'
import { Active, LEFT_BEHIND_AFTER_MS } from '../../lib/consumer/active.ts'
import { DeadlineWatch } from '../../lib/consumer/deadline-watch.ts'
import type { Context, Handler } from '../../lib/consumer/handler.ts'
import { ChannelLost, Closed, HandlerTimeout, InvalidOption, LeaseLost } from '../../lib/errors.ts'
import { derivedMessageId, type OutgoingMessage } from '../../lib/message.ts'
import { latch } from '../support/eventually.ts'
import { FakeProducer, run } from './fakes.ts'

const LONG_MS = 60_000
const body = { n: 1 }

function attempt(handler: Handler, options: { timeoutMs?: number; producer?: FakeProducer; guarded?: boolean } = {}) {
  const { timeoutMs = LONG_MS, producer = new FakeProducer(), guarded = true } = options
  const active = new Active(run({ guarded }), producer.asProducer)
  return { active, producer, end: active.run(handler, new DeadlineWatch(timeoutMs)) }
}

/** A handler that waits for its signal and throws its reason, as `fetch(url, { signal })` does. */
const obedient: Handler = (_, { signal }) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

describe('attempt: how it ends', () => {
  // P15: a handler that throws, in whatever way, is a failed attempt and nothing worse.
  it('takes a synchronous throw, a rejection and a thrown undefined for a failed attempt', async () => {
    const boom = new Error('boom')
    const sync: Handler = () => {
      throw boom
    }
    expect(await attempt(sync).end).to.deep.equal({ ended: 'failed', error: boom })
    expect(await attempt(async () => Promise.reject(boom)).end).to.deep.equal({ ended: 'failed', error: boom })
    expect(await attempt(() => Promise.reject(undefined)).end).to.deep.equal({ ended: 'failed', error: undefined })
  })

  it('takes an error that trips whoever reads it for a failed attempt, also after its signal has fired', async () => {
    const trap = new Proxy(new Error('x'), {
      get: () => {
        throw new Error('gotcha')
      },
    })
    const handler: Handler = (_, { signal }) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(trap)))
    const { active, end } = attempt(handler)
    active.abort(new ChannelLost('gone'))
    const { ended } = await end
    expect(ended).to.equal('failed')
  })

  it('takes a handler without a promise for done', async () => {
    expect(await attempt(() => {}).end).to.deep.equal({ ended: 'done' })
  })

  it('fires the signal with HandlerTimeout when time is up, and counts that as a failure', async () => {
    const end = await attempt(obedient, { timeoutMs: 5 }).end
    expect(end.ended).to.equal('failed')
    expect((end as { error: unknown }).error).to.be.instanceOf(HandlerTimeout)
  })

  it('leaves a handler that never settles behind, a second after its time was up', async () => {
    const started = performance.now()
    const end = await attempt(() => new Promise(() => {}), { timeoutMs: 5 }).end
    expect(end.ended).to.equal('failed')
    expect(performance.now() - started).to.be.at.least(LEFT_BEHIND_AFTER_MS - 5)
  })

  it('counts a handler that ends in the second after its time was up as what it is: done', async () => {
    const late: Handler = (_, { signal }) =>
      new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    expect(await attempt(late, { timeoutMs: 5 }).end).to.deep.equal({ ended: 'done' })
  })

  for (const reason of [new ChannelLost('gone'), new LeaseLost('late'), new Closed('closing')]) {
    it(`fires the signal with ${reason.name} as it is, and counts what the handler then throws as an interruption`, async () => {
      const { active, end } = attempt(obedient)
      active.abort(reason)
      expect(await end).to.deep.equal({ ended: 'interrupted', error: reason })
    })
  }

  it("counts a failure of the handler's own, also after its signal fired, and an AbortError as an interruption", async () => {
    for (const [error, ended] of [
      [new Error('boom'), 'failed'],
      [new DOMException('stop', 'AbortError'), 'interrupted'],
    ] as const) {
      const gate = latch()
      const { active, end } = attempt(() => gate.promise)
      active.abort(new LeaseLost('late'))
      gate.reject(error)
      expect((await end).ended).to.equal(ended)
    }
  })

  // A message must not run a second time in this process beside a handler that has only lost its channel.
  it('waits for a handler that ignores the loss of its channel, for as long as it takes, and counts it as done', async () => {
    const gate = latch()
    const { active, end } = attempt(() => gate.promise)
    active.abort(new ChannelLost('gone'))
    let ended = false
    end.then(() => (ended = true))
    await new Promise((resolve) => setTimeout(resolve, LEFT_BEHIND_AFTER_MS + 200))
    expect(ended).to.equal(false)
    gate.resolve()
    expect(await end).to.deep.equal({ ended: 'done' })
  })

  it('keeps its time limit after the channel was lost', async () => {
    const { active, end } = attempt(() => new Promise(() => {}), { timeoutMs: 50 })
    active.abort(new ChannelLost('gone'))
    expect((await end).ended).to.equal('failed')
  })

  it('leaves a handler behind that ignores the closing of its consumer, also when its channel was lost before', async () => {
    const { active, end } = attempt(() => new Promise(() => {}))
    active.abort(new ChannelLost('gone'))
    active.abort(new Closed('closing'))
    expect((await end).ended).to.equal('interrupted')
  })

  it('makes the signal only when it is looked at, aborted if it fired before', async () => {
    const seen = latch<Context>()
    const gate = latch()
    const { active, end } = attempt((_, context) => {
      seen.resolve(context)
      return gate.promise
    })
    const reason = new ChannelLost('gone')
    active.abort(reason)
    const context = await seen.promise
    expect(context.signal.aborted).to.equal(true)
    expect(context.signal.reason).to.equal(reason)
    gate.resolve()
    await end
  })
})

describe('attempt: what the handler publishes', () => {
  it('carries the transaction on, and derives the id from the incoming one and the place or name of the publish', async () => {
    const { producer, end } = attempt(async (_, { publish, send }) => {
      await publish('shop', { type: 'a', body })
      await send('mails', { type: 'b', body }, { name: 'mail' })
      await publish('shop', { type: 'c', body, messageId: 'mine', transactionId: 'other' })
    })
    await end
    const ids = producer.published.map(({ message }) => [message.messageId, message.transactionId])
    const derived = (name: string) => derivedMessageId('m-1', 'work', name)
    expect(ids).to.deep.equal([
      [derived('0'), 't-m-1'],
      [derived('name:mail'), 't-m-1'],
      ['mine', 'other'],
    ])
    expect(producer.published[1]!.options).to.deep.equal({})
  })

  it('derives the same ids when the run is repeated, and others for another message', async () => {
    const handler: Handler = async (_, { publish }) => void (await publish('shop', { body }))
    const [first, second] = [attempt(handler), attempt(handler)]
    await Promise.all([first.end, second.end])
    expect(first.producer.published[0]!.message.messageId).to.equal(second.producer.published[0]!.message.messageId)
    expect(derivedMessageId('m-2', 'work', '0')).to.not.equal(derivedMessageId('m-1', 'work', '0'))
  })

  it('takes an id that is given as undefined for left out', async () => {
    const { producer, end } = attempt(async (_, { publish }) => {
      await publish('shop', { body, messageId: undefined, transactionId: undefined } as unknown as OutgoingMessage)
    })
    await end
    const { messageId, transactionId } = producer.published[0]!.message
    expect([messageId, transactionId]).to.deep.equal([derivedMessageId('m-1', 'work', '0'), 't-m-1'])
  })

  it('never confuses a name with a place', async () => {
    const { producer, end } = attempt(async (_, { publish }) => {
      await publish('shop', { body })
      await publish('shop', { body }, { name: '0' })
    })
    await end
    expect(new Set(producer.published.map(({ message }) => message.messageId)).size).to.equal(2)
  })

  it('refuses two publishes of one name, the second of which consumers would drop', async () => {
    const { producer, end } = attempt(async (_, { publish }) => {
      await publish('shop', { body }, { name: 'mail' })
      await publish('shop', { body }, { name: 'mail' })
    })
    const ended = await end
    expect((ended as { error: unknown }).error).to.be.instanceOf(InvalidOption)
    expect(producer.published).to.have.length(1)
  })

  it('lets a publish that failed be repeated under its name', async () => {
    const producer = new FakeProducer()
    let failures = 1
    producer.answer = async () => {
      if (failures-- > 0) throw new Error('not sent')
    }
    const { end } = attempt(
      async (_, { publish }) => {
        await publish('shop', { body }, { name: 'mail' }).catch(() => {})
        await publish('shop', { body }, { name: 'mail' })
      },
      { producer },
    )
    expect(await end).to.deep.equal({ ended: 'done' })
  })

  it('is done only when a publish that nobody awaited is confirmed', async () => {
    const producer = new FakeProducer()
    const confirm = latch()
    producer.answer = () => confirm.promise
    const { end } = attempt((_, { publish }) => void publish('shop', { body }), { producer })
    let ended = false
    end.then(() => (ended = true))
    await new Promise((resolve) => setImmediate(resolve))
    expect(ended).to.equal(false)
    confirm.resolve()
    expect(await end).to.deep.equal({ ended: 'done' })
  })

  it('fails when a publish that nobody awaited fails', async () => {
    const producer = new FakeProducer()
    const error = new Error('nobody took it')
    producer.answer = () => Promise.reject(error)
    expect(await attempt((_, { publish }) => void publish('shop', { body }), { producer }).end).to.deep.equal({
      ended: 'failed',
      error,
    })
  })

  // Else: acked, completed, and its publish never made.
  it('is not done when its signal fired before a publish that nobody awaited', async () => {
    const gate = latch()
    const { active, producer, end } = attempt(async (_, { publish }) => {
      await gate.promise
      void publish('shop', { body })
    })
    active.abort(new LeaseLost('late'))
    gate.resolve()
    expect((await end).ended).to.equal('interrupted')
    expect(producer.published).to.deep.equal([])
  })

  it('publishes nothing after the handler has ended', async () => {
    let kept: Context | undefined
    const { producer, end } = attempt((_, context) => {
      kept = context
    })
    await end
    const error = await kept!.publish('shop', { body }).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(Closed)
    expect(producer.published).to.deep.equal([])
  })

  it('answers a publish without a message by a rejection, not by a throw', async () => {
    const { end } = attempt((_, { publish }) => {
      publish('shop', undefined as never).catch(() => {})
    })
    await end
  })

  it('gives messages without an identity ids of their own', async () => {
    const { producer, end } = attempt(async (_, { publish }) => void (await publish('shop', { body })), {
      guarded: false,
    })
    await end
    expect(producer.published[0]!.message.messageId).to.equal(undefined)
  })

  it('gives a context that a middleware may spread', async () => {
    const { producer, end } = attempt(async (_, context) => {
      const wider = { ...context, more: 1 }
      expect(wider.signal.aborted).to.equal(false)
      await wider.publish('shop', { body })
      expect(wider).to.include({ attempt: 1, generation: 0, fencingToken: 7, queue: 'work', transactionId: 't-m-1' })
    })
    expect(await end).to.deep.equal({ ended: 'done' })
    expect(producer.published).to.have.length(1)
  })
})

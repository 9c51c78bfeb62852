import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'chai'
import fc from 'fast-check'
import { Confirms } from '../../lib/producer/confirms.ts'
import { type Asked, Pending, type PublishEnd } from '../../lib/producer/pending.ts'

const WINDOW = { windowMessages: 2, windowBytes: 100 }
/** Two publishes of one id, one to another exchange, a small one, and one larger than the window. */
const PUBLISHES = [
  { id: 'a', exchange: '', bytes: 10 },
  { id: 'a', exchange: '', bytes: 10 },
  { id: 'b', exchange: 'x', bytes: 20 },
  { id: 'c', exchange: '', bytes: 90 },
  { id: 'd', exchange: 'x', bytes: 150 },
]

/** A publish whose end the test hears. */
class Publishing extends Pending {
  readonly #settle: (end: PublishEnd, pending: Pending) => void

  constructor(asked: Asked, settle: (end: PublishEnd, pending: Pending) => void) {
    super(asked)
    this.#settle = settle
  }

  settle(end: PublishEnd): void {
    this.#settle(end, this)
  }
}

function pendingOf(
  of: { id: string; exchange: string; bytes: number },
  settle: (end: PublishEnd, pending: Pending) => void = () => {},
): Pending {
  const { id: messageId, exchange, bytes } = of
  const wire = { exchange, routingKey: '', content: Buffer.alloc(bytes), properties: { messageId, headers: {} } }
  const message = { ...wire, messageId, transactionId: messageId }
  return new Publishing({ message, mandatory: true, startedAt: 0, deadlineAt: 1 }, settle)
}

/** How the sends of one publish ended, as the world knows it. */
type Fate = 'stored' | 'returned' | 'nacked' | 'refused' | 'unanswered'

interface Publish {
  readonly pending: Pending
  readonly fates: Fate[]
  end: PublishEnd | undefined
  marked: boolean
}

/** A broker, a clock and a user around the bookkeeping, none of which it knows. */
class World {
  readonly confirms = new Confirms(WINDOW)
  readonly publishes: Publish[] = []
  readonly wire: Publish[] = []

  /** Everything that may happen next. */
  get actions(): (() => void)[] {
    return [
      ...(this.publishes.length < PUBLISHES.length ? [() => this.publish()] : []),
      ...this.wire.flatMap((p) => [
        () => this.answer(p, 'ack'),
        () => this.answer(p, 'nack'),
        ...(p.marked ? [] : [() => this.giveBack(p)]),
      ]),
      ...this.confirms.heldExchanges.flatMap((name) => [
        () => this.confirms.exchangeKnown(name),
        () => this.confirms.exchangeRefused(name, 'gone', new Error('404')),
      ]),
      ...this.publishes
        .filter((p) => !p.end)
        .flatMap((p) => [
          () => this.confirms.giveUp(p.pending, 'deadline', true),
          ...(p.pending.phase === 'backing-off' ? [() => this.confirms.wait(p.pending)] : []),
        ]),
      () => this.lose(),
      ...(this.wire.length > 0 ? [() => this.blame(undefined), () => this.blame('x')] : []),
    ]
  }

  do(action: () => void): void {
    action()
    this.pump()
    this.check()
  }

  publish(): void {
    const publish: Publish = { pending: undefined as unknown as Pending, fates: [], end: undefined, marked: false }
    const settle = (end: PublishEnd) => {
      expect(publish.end, 'settled twice').equal(undefined)
      publish.end = end
      this.judge(publish)
    }
    Object.assign(publish, { pending: pendingOf(PUBLISHES[this.publishes.length]!, settle) })
    this.publishes.push(publish)
    this.confirms.add(publish.pending)
  }

  pump(): void {
    for (let pending = this.confirms.next(); pending; pending = this.confirms.next()) {
      const publish = this.publishes.find((p) => p.pending === pending)!
      const { messageId } = pending.message
      expect(
        this.wire.some((p) => p.pending.message.messageId === messageId),
        'one id twice on the wire',
      ).equal(false)
      publish.fates.push('unanswered')
      publish.marked = false
      this.wire.push(publish)
    }
  }

  answer(publish: Publish, answer: 'ack' | 'nack'): void {
    this.wire.splice(this.wire.indexOf(publish), 1)
    publish.fates[publish.fates.length - 1] = answer === 'nack' ? 'nacked' : publish.marked ? 'returned' : 'stored'
    this.confirms.answered(publish.pending, answer)
  }

  giveBack(publish: Publish): void {
    publish.marked = true
    publish.fates[publish.fates.length - 1] = 'returned'
    expect(this.confirms.markReturned(publish.pending.message.messageId, { code: 312, text: 'NO_ROUTE' })).equal(true)
  }

  lose(): void {
    for (const publish of this.wire.splice(0)) this.confirms.answered(publish.pending, 'lost')
    this.confirms.forgetExchanges()
  }

  blame(exchange: string | undefined): void {
    const meant = this.wire.filter((p) => exchange === undefined || p.pending.message.exchange === exchange)
    if (meant.length === 1 && !meant[0]!.marked) meant[0]!.fates[meant[0]!.fates.length - 1] = 'refused'
    this.confirms.blame(new Error('406'), exchange)
    this.lose()
  }

  /** Is the outcome all that is known, and no more than is known? */
  judge({ end, fates }: Publish): void {
    const [last] = fates.slice(-1)
    const has = (fate: Fate) => fates.includes(fate)
    const honest =
      last === 'stored'
        ? 'confirmed'
        : has('unanswered')
          ? 'unknown'
          : has('nacked') || has('refused')
            ? 'nacked'
            : has('returned')
              ? 'returned'
              : 'not-sent'
    expect(end?.outcome, JSON.stringify(fates)).equal(honest)
  }

  check(): void {
    const { confirms, publishes, wire } = this
    const bytes = wire.reduce((sum, { pending }) => sum + pending.message.content.length, 0)
    expect(confirms.onWire).equal(wire.length)
    expect(wire.length).most(WINDOW.windowMessages)
    if (wire.length > 1) expect(bytes).most(WINDOW.windowBytes)
    const open = publishes.filter((p) => !p.end)
    expect(confirms.openCount).equal(open.length)
    const waiting = open.filter((p) => p.pending.phase !== 'sent')
    expect(confirms.waitingCount).equal(waiting.length)
    expect(confirms.waitingBytes).equal(waiting.reduce((sum, p) => sum + p.pending.message.content.length, 0))
  }

  /** Whatever happened: when everything is given up and the channel is gone, nothing is left. */
  end(): void {
    for (const { pending } of this.publishes) this.confirms.giveUp(pending, 'closed', true)
    this.lose()
    this.check()
    expect(this.publishes.every((p) => p.end)).equal(true)
    expect([this.confirms.onWire, this.confirms.waitingCount, this.confirms.waitingBytes]).deep.equal([0, 0, 0])
    expect(this.confirms.heldExchanges).empty
    for (const id of ['a', 'b', 'c', 'd']) {
      const next = pendingOf({ id, exchange: '', bytes: 1 })
      this.confirms.add(next)
      expect(this.confirms.next(), `the id ${id} is free again`).equal(next)
      this.confirms.answered(next, 'ack')
    }
  }
}

function replay(choices: readonly number[]): World {
  const world = new World()
  for (const choice of choices) {
    const { actions } = world
    world.do(actions[choice % actions.length]!)
  }
  return world
}

/** All histories of that length, depth first. @returns how many */
function explore(length: number, prefix: readonly number[] = []): number {
  const world = replay(prefix)
  const { length: width } = world.actions
  if (prefix.length === length) {
    world.end()
    return 1
  }
  return Array.from({ length: width }, (_, choice) => explore(length, [...prefix, choice])).reduce((a, b) => a + b, 0)
}

describe('confirms', () => {
  it('P8: settle every publish once and honestly, within the window, in every short history', function () {
    this.timeout(60_000)
    expect(explore(5)).above(1_000)
  })

  it('settle every publish once and honestly in long histories', function () {
    this.timeout(60_000)
    fc.assert(
      fc.property(fc.array(fc.nat(999), { minLength: 5, maxLength: 60 }), (choices) => replay(choices).end()),
      { numRuns: 4_000 },
    )
  })

  it('send first what was published first, repeats included', () => {
    const confirms = new Confirms({ windowMessages: 3, windowBytes: 1_000 })
    const all = Array.from({ length: 8 }, (_, i) => pendingOf({ id: `m${i}`, exchange: '', bytes: 1 }))
    for (const pending of all) confirms.add(pending)
    const sent = [confirms.next(), confirms.next(), confirms.next()]
    expect(confirms.next()).equal(undefined)
    for (const pending of sent) confirms.answered(pending!, 'lost')
    const again: (Pending | undefined)[] = []
    for (let pending = confirms.next(); pending; pending = confirms.next()) {
      again.push(pending)
      confirms.answered(pending, 'ack')
    }
    expect(again).deep.equal(all)
  })

  it('find out which message closes the channel, and fail no other', () => {
    const confirms = new Confirms({ windowMessages: 100, windowBytes: 1_000 })
    const ends = new Map<string, PublishEnd>()
    const all = Array.from({ length: 20 }, (_, i) =>
      pendingOf({ id: `m${i}`, exchange: '', bytes: 1 }, (end, { message }) => ends.set(message.messageId, end)),
    )
    for (const pending of all) confirms.add(pending)
    let channels = 0
    while (confirms.openCount > 0) {
      const wire: Pending[] = []
      for (let pending = confirms.next(); pending; pending = confirms.next()) wire.push(pending)
      const poison = wire.findIndex((p) => p.message.messageId === 'm7')
      for (const pending of poison < 0 ? wire : []) confirms.answered(pending, 'ack')
      if (poison < 0) continue
      channels++
      confirms.blame(new Error('406 too large'))
      for (const pending of wire) confirms.answered(pending, 'lost')
    }
    expect(channels).equal(2)
    expect(ends.get('m7')).include({ outcome: 'unknown', retryable: false })
    expect([...ends.values()].filter((end) => end.outcome === 'confirmed')).length(19)
    for (const pending of all.slice(0, 5))
      confirms.add(pendingOf({ id: pending.message.messageId, exchange: '', bytes: 1 }))
    expect(
      Array.from({ length: 5 }, () => confirms.next()),
      'the window is open again',
    ).not.include(undefined)
  })

  it('hold nothing of a publish that was given up while it waited', () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const confirms = new Confirms(WINDOW)
    const contents = Array.from({ length: 50 }, (_, i) => {
      const pending = pendingOf({ id: `m${i}`, exchange: 'x', bytes: 1_000 })
      confirms.add(pending)
      if (i % 2) confirms.next()
      confirms.giveUp(pending, 'deadline', true)
      return new WeakRef(pending.message)
    })
    return new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      gc()
      expect(contents.filter((c) => c.deref() !== undefined)).length(0)
      expect(confirms.openCount).equal(0)
    })
  })

  it('keep their order cheap: 60,000 lost at once find their places again', () => {
    const confirms = new Confirms({ windowMessages: 65_535, windowBytes: 1e9 })
    const sent: Pending[] = []
    for (let i = 0; i < 70_000; i++) confirms.add(pendingOf({ id: `m${i}`, exchange: '', bytes: 0 }))
    for (let pending = confirms.next(); pending; pending = confirms.next()) sent.push(pending)
    const started = performance.now()
    for (const pending of sent) confirms.answered(pending, 'lost')
    expect(confirms.next()).equal(sent[0])
    expect(performance.now() - started).below(5_000)
  })
})

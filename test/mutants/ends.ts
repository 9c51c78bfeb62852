// Faults at the two ends: publishes and their confirms, deliveries and their acks.

import { type Mutant, tests } from './mutant.ts'

const CONFIRMS = 'lib/producer/confirms.ts'
const PENDING = 'lib/producer/pending.ts'
const PUBLISHER_CHANNEL = 'lib/producer/publisher-channel.ts'
const GATHER = 'lib/connection/gather-messages.ts'
const GATHER_TESTS = 'test/connection/gather-messages.test.ts'
const PROCESSOR = 'lib/consumer/processor.ts'
const EVERY_HISTORY = tests('test/producer/confirms.test.ts', 'P8: settle every publish once and honestly')
const EVERY_BROKER = (...titled: readonly string[]) => tests('test/producer/publisher-interleavings.test.ts', ...titled)
const EVERY_STEP = (...titled: readonly string[]) => tests('test/consumer/every-step.test.ts', ...titled)

/** See the head of this file. */
export const endsMutants: readonly Mutant[] = [
  {
    name: 'confirm-on-return',
    breaks: 'a message that no queue took counts as confirmed',
    file: PENDING,
    from: "if (!returned) return { outcome: 'confirmed' }",
    to: "if (returned !== null) return { outcome: 'confirmed' }",
    tests: EVERY_HISTORY,
  },
  {
    name: 'confirm-forgets-doubt',
    breaks: 'a publish given up while unanswered says that nothing was sent',
    file: PENDING,
    from: "const doubtful = pending.phase === 'sent' || pending.inDoubt",
    to: 'const doubtful = pending.inDoubt',
    tests: EVERY_HISTORY,
  },
  {
    name: 'confirm-lost-means-stored',
    breaks: 'a publish whose channel was lost before the answer counts as confirmed',
    file: CONFIRMS,
    from: "else if (answer === 'ack' || (answer === 'lost' && pending.returned)) this.#settle(pending, acked(pending))",
    to: "else if (answer === 'ack' || answer === 'lost') this.#settle(pending, acked(pending))",
    tests: EVERY_HISTORY,
  },
  {
    name: 'confirm-one-id-twice-on-wire',
    breaks: 'two publishes of one id overlap, and the return of one is taken for the other’s',
    file: CONFIRMS,
    from: 'if (this.#turn.has(messageId)) {',
    to: "if (this.#turn.has(messageId + '?')) {",
    tests: EVERY_HISTORY,
  },
  {
    name: 'nack-taken-for-ack',
    breaks: 'a message the broker refused counts as confirmed',
    file: 'lib/producer/publisher.ts',
    from: "const answer = error === null ? 'ack' :",
    to: "const answer = error === null || error.message === 'message nacked' ? 'ack' :",
    tests: EVERY_BROKER('every order of few steps'),
  },
  {
    name: 'return-ignored',
    breaks: 'what the broker returns is not heard of, and its ack is taken for a confirm',
    file: PUBLISHER_CHANNEL,
    from: "channel.on('return', ({ properties, fields }) => {",
    to: "channel.on('returned', ({ properties, fields }) => {",
    tests: EVERY_BROKER('every order of few steps'),
  },
  {
    name: 'renewed-under-publishes',
    breaks: 'publishes of the turn in which the channel is renewed go out on the old one, and their confirms are void',
    file: PUBLISHER_CHANNEL,
    from: 'if (this.#confirms.onWire === 0)\n',
    to: 'if (this.#confirms.onWire > 0) return true\n    this.#renewal = void clearTimeout(this.#renewal)\n',
    tests: EVERY_BROKER('the last nack has just come'),
  },
  {
    name: 'confirms-out-of-step',
    breaks:
      'who waits for a confirm is noted before the message is on the channel: one that cannot be sent shifts all later confirms',
    file: 'lib/producer/channel-publish.ts',
    from: 'channel.sendMessage(frame, frame, sendable.message.content)\n    channel.pushConfirmCallback(answered)',
    to: 'channel.pushConfirmCallback(answered)\n    channel.sendMessage(frame, frame, sendable.message.content)',
    tests: EVERY_BROKER('cannot be encoded'),
  },
  {
    name: 'ack-before-record',
    breaks: 'a delivery is acked before its end is recorded',
    file: PROCESSOR,
    from: "const recording = this.#end(run, { state: 'completed' })",
    to: "this.#ack(delivery, run)\n    const recording = this.#end(run, { state: 'completed' })",
    tests: EVERY_STEP('no fault'),
  },
  {
    name: 'letter-of-lost-delivery-forgotten',
    breaks: 'a letter that was confirmed after its delivery was lost is written a second time',
    file: PROCESSOR,
    from: 'if (error === undefined) return true',
    to: 'if (error === undefined) return !delivery.stale',
    tests: EVERY_STEP('ends as a dead letter: a fault'),
  },
  {
    name: 'late-letter-off-the-record',
    breaks:
      'a letter written for an attempt that is known to have failed is not recorded: each late copy writes another',
    file: 'lib/idempotency/guard.ts',
    from: "if ('fencingToken' in result) run",
    to: "if (result.status === 'acquired' || result.status === 'exhausted') run",
    tests: EVERY_STEP('ends as a dead letter: a fault'),
  },
  {
    name: 'grant-of-any-age',
    breaks: 'a process that was frozen starts a handler on a grant that was already another owner’s when it woke',
    file: 'lib/idempotency/guard.ts',
    from: 'performance.now() - sentAt > this.#parts.scope.leaseMs ||',
    to: '',
    tests: tests('test/consumer/guard.test.ts', 'starts nothing on a grant that is older than a lease'),
  },
  {
    name: 'late-grant-asked-beside-a-renewal',
    breaks:
      'a grant that came too late is asked for again beside a renewal that hangs: after a second freeze it takes over',
    file: 'lib/idempotency/guard.ts',
    from: 'for (let wait = this.#claimable(givenUp); wait && !givenUp.aborted; wait = this.#claimable(givenUp)) await wait',
    to: 'await pause(this.#silence.leftMs, givenUp)',
    tests: tests('test/consumer/guard.test.ts', 'asks for a grant that came too late once more only when'),
  },
  {
    name: 'grant-after-the-loss-was-told',
    breaks: 'a handler is started after the loss of all leases was told, and never hears of it',
    file: 'lib/idempotency/guard.ts',
    from: '|| this.#toldSilence === this.#renewedAt',
    to: '',
    tests: tests('test/consumer/guard.test.ts', 'starts nothing on a grant that comes after it has told'),
  },
  {
    name: 'claims-right-after-a-silence',
    breaks: 'after a silence that nobody took for an outage, the quickest takes over before the others could renew',
    file: 'lib/idempotency/silence.ts',
    from: 'if (late && (outage || news)) this',
    to: 'if (late && outage) this',
    tests: tests('test/consumer/guard.test.ts', 'claims nothing after a silence that nobody took for an outage'),
  },
  {
    name: 'claims-behind-a-renewal',
    breaks: 'a renewal that lies before the claim in a frozen store revives its owner, and the claim takes over',
    file: 'lib/idempotency/guard.ts',
    from: 'this.#outage || this.#renewal || ',
    to: 'this.#outage || ',
    tests: tests('test/consumer/guard.test.ts', 'claims nothing while a renewal is unanswered'),
  },
  {
    name: 'ack-on-another-channel',
    breaks: 'a delivery of a lost channel is settled on the channel that is open now',
    file: 'lib/consumer/consumer.ts',
    from: 'this.#take(new Delivery(raw, epoch))',
    to: 'const now = { open: true, signal: epoch.signal, arrived: (it) => epoch.arrived(it), settle: (...of) => this.#epoch.settle(...of) }\n    this.#take(new Delivery(raw, now))',
    tests: EVERY_STEP('outlasts a lost channel, and succeeds at the second attempt: a fault'),
  },
  {
    name: 'ack-for-many-takes-all',
    breaks: 'an ack for many takes deliveries along whose handlers still run',
    file: 'lib/consumer/delivery.ts',
    from: 'if (deliveryTag > lowest)',
    to: 'if (deliveryTag < 0)',
    tests: tests('test/consumer/delivery-interleavings.test.ts', 'are settled once, as asked'),
  },
  {
    name: 'settled-twice',
    breaks: 'a delivery is settled more than once',
    file: 'lib/consumer/delivery.ts',
    from: 'this.#settled = true',
    to: '',
    tests: tests('test/consumer/delivery.test.ts', 'is settled at most once'),
  },
  {
    name: 'one-handler-too-many',
    breaks: 'more handlers run than concurrency allows',
    file: 'lib/consumer/in-flight.ts',
    from: 'while (!this.#halted && this.#running < this.#concurrency && this.#ready.length > 0)',
    to: 'while (!this.#halted && this.#running <= this.#concurrency && this.#ready.length > 0)',
    tests: tests('test/consumer/in-flight.test.ts', 'runs no more than concurrency jobs'),
  },
  {
    name: 'runs-beside-itself',
    breaks: 'a copy that another key orders runs beside the handler of its message',
    file: PROCESSOR,
    from: 'if ((this.#holders.get(messageId) ?? serial) !== serial) return false',
    to: '',
    tests: tests('test/consumer/copies.test.ts', 'never run side by side in one process'),
  },
  {
    name: 'closing-starts-handlers',
    breaks: 'a consumer that closes goes on starting handlers',
    file: 'lib/consumer/in-flight.ts',
    from: 'this.#halted = true',
    to: '',
    tests: tests('test/consumer/in-flight.test.ts', 'starts nothing after halt, before what waits is dropped'),
  },
  {
    name: 'done-before-its-publishes',
    breaks: 'a message is completed before what its handler published is confirmed',
    file: 'lib/consumer/active.ts',
    from: 'await Promise.all(this.#publishes.values())',
    to: '',
    tests: tests('test/consumer/active.test.ts', 'is done only when a publish that nobody awaited is confirmed'),
  },
  {
    name: 'messages-after-close',
    breaks: 'what was gathered for a channel is written after the channel was closed',
    file: GATHER,
    from: ' || buffer.writableEnded',
    to: '',
    tests: tests(GATHER_TESTS, 'are dropped with their channel'),
  },
  {
    name: 'messages-overtaken',
    breaks: 'a method told to a channel overtakes the messages that were published on it before',
    file: GATHER,
    from: 'gathered.flush()\n    return sendMethod.apply',
    to: 'return sendMethod.apply',
    tests: tests(GATHER_TESTS, 'go before what is told to their channel later in the same turn'),
  },
]

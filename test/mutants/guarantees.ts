// Faults in what stands on both ends: retries, dead letters, replay, the outbox and its relay, half messages.

import { type Mutant, tests } from './mutant.ts'

const PROCESSOR = 'lib/consumer/processor.ts'
const RELAY = 'test/outbox/relay.test.ts'
const GIVEN_UP = 'test/sql/given-up.test.ts'
const DECISIONS = 'test/transactional-message/decision-stores.test.ts'
const EVERY_STEP = (...titled: readonly string[]) => tests('test/consumer/every-step.test.ts', ...titled)

/** See the head of this file. */
export const guaranteeMutants: readonly Mutant[] = [
  {
    name: 'retry-acked-before-confirmed',
    breaks: 'a failed message is acked before its copy in the delay is confirmed',
    file: PROCESSOR,
    from: '() =>\n      outlet.retry(delivery.raw, run, run.attempt + 1, delayMs, error),',
    to: 'async () =>\n      void outlet.retry(delivery.raw, run, run.attempt + 1, delayMs, error).catch(() => {}),',
    tests: EVERY_STEP('no fault'),
  },
  {
    name: 'retry-not-counted',
    breaks: 'the copy carries the attempt that failed: it is tried for ever',
    file: PROCESSOR,
    from: 'outlet.retry(delivery.raw, run, run.attempt + 1, delayMs, error),',
    to: 'outlet.retry(delivery.raw, run, run.attempt, delayMs, error),',
    tests: EVERY_STEP('no fault'),
  },
  {
    name: 'failure-not-recorded',
    breaks: 'a failed attempt is not recorded: when its channel is lost it is made again, one more than allowed',
    file: PROCESSOR,
    from: "const recorded = await this.#end(run, { state: 'failed', nextAttempt: run.attempt + 1 })",
    to: "const recorded = await this.#end(run, { state: 'returned' })",
    tests: EVERY_STEP('fault before or after each step'),
  },
  {
    name: 'dead-acked-before-published',
    breaks: 'a message is acked before its dead letter is confirmed',
    file: PROCESSOR,
    from: '() =>\n      this.#parts.outlet.bury(delivery.raw, run, reason, error),',
    to: 'async () =>\n      void this.#parts.outlet.bury(delivery.raw, run, reason, error).catch(() => {}),',
    tests: EVERY_STEP('fault before or after each step'),
  },
  {
    name: 'replay-without-generation',
    breaks: 'a replayed letter looks like a copy of the dead one, and is dropped',
    file: 'lib/dead-letter/copies.ts',
    from: '[HEADER.generation]: generationOf(raw) + 1 })',
    to: '[HEADER.generation]: generationOf(raw) })',
    tests: tests('test/dead-letter/replaying.test.ts', 'sends a message on without its story, as the next generation'),
  },
  {
    name: 'letter-acked-before-copy',
    breaks: 'discard and restore ack a letter before its copy is confirmed',
    file: 'lib/dead-letter/move.ts',
    from: 'await publisher.publish(copy, PUBLISH)\n  taken.ack()',
    to: 'taken.ack()\n  await publisher.publish(copy, PUBLISH)',
    tests: tests('test/dead-letter/move.test.ts', 'acks a letter when its copy is confirmed, and not before'),
  },
  {
    name: 'multiple-ack-as-single',
    breaks: 'an ack for many letters is sent as an ack for one: the others come again',
    file: 'lib/dead-letter/acks.ts',
    from: 'if (upTo > 0) this.#send(upTo, true)',
    to: 'if (upTo > 0) this.#send(upTo, false)',
    tests: tests('test/dead-letter/acks.test.ts', 'sends one ack for many without a gap'),
  },
  {
    name: 'single-ack-as-multiple',
    breaks: 'an ack for one letter takes those before it along, which were not moved: they are lost',
    file: 'lib/dead-letter/acks.ts',
    from: 'this.#send(tag, false)',
    to: 'this.#send(tag, true)',
    tests: tests('test/dead-letter/acks.test.ts', 'sends one ack for many without a gap'),
  },
  {
    name: 'relay-deletes-before-confirm',
    breaks: 'the relay takes a row for sent when it has handed it over, not when it is confirmed',
    file: 'lib/outbox/relay-flights.ts',
    from: 'this.#parts.sender.send(entry.row).then(',
    to: 'Promise.resolve(void this.#parts.sender.send(entry.row).catch(() => {})).then(',
    tests: tests(RELAY, 'holds back only the key of a row that no queue takes'),
  },
  {
    name: 'given-up-statements-pile-up',
    breaks: 'statements at a locked table wait on, one after another, until the database has no connection left',
    file: 'lib/sql/given-up.ts',
    from: 'return performance.now() < (until.get(pool) ?? Number.NEGATIVE_INFINITY)',
    to: 'return until.has(pool) && performance.now() < 0',
    tests: tests(GIVEN_UP, 'is the last one of its pool to wait on'),
  },
  {
    name: 'given-up-transaction-stays-open',
    breaks: 'a relay whose line is lost before its COMMIT leaves rows locked for hours',
    file: 'lib/sql/given-up.ts',
    from: "['statement_timeout', 'idle_in_transaction_session_timeout'].map(",
    to: "['statement_timeout'].map(",
    tests: tests(GIVEN_UP, 'leaves no transaction open, and no row locked'),
  },
  {
    name: 'relay-ignores-returned',
    breaks: 'the relay does not ask whether a queue took the message',
    file: 'lib/outbox/relay-send.ts',
    from: 'mandatory: true,',
    to: 'mandatory: false,',
    tests: tests(RELAY, 'holds back only the key of a row that no queue takes'),
  },
  {
    name: 'relay-overtakes-failed-row',
    breaks: 'rows of a key are sent although one before them has failed',
    file: 'lib/outbox/relay-book.ts',
    from: 'if (!chain.flying && !chain.verdict) this.#enqueue(chain)',
    to: 'if (!chain.flying) this.#enqueue(chain)',
    tests: tests('test/outbox/relay-book.test.ts', 'lets nothing of a key fly after a failure'),
  },
  {
    name: 'outbox-numbered-at-insert',
    breaks: 'the order of a key is that of its INSERTs, not of its commits',
    file: 'lib/sql/migrations/001-outbox.ts',
    from: 'FOR EACH ROW WHEN (NOT NEW.placed) EXECUTE',
    to: 'FOR EACH ROW WHEN (false) EXECUTE',
    tests: tests('test/outbox/order.test.ts', 'is the order of commits, however two transactions interleave'),
  },
  {
    name: 'half-late-commit-memory',
    breaks: 'a commit that comes after the rollback is accepted (memory)',
    file: 'lib/transactional-message/memory.ts',
    from: 'if (before.decision) return this.#write(scope, transactionId, before)',
    to: '',
    tests: tests(DECISIONS, 'MemoryDecisionStore lets the first decision stand'),
  },
  {
    name: 'half-late-commit-redis',
    breaks: 'a commit that comes after the rollback is accepted (Redis)',
    file: 'lib/transactional-message/redis-decisions.ts',
    from: "if call('HEXISTS', KEYS[1], 'decision') == 0 then",
    to: 'if true then',
    tests: tests(DECISIONS, 'RedisDecisionStore lets the first decision stand'),
  },
  {
    name: 'half-late-commit-postgres',
    breaks: 'a commit that comes after the rollback is accepted (Postgres)',
    file: 'lib/transactional-message/postgres-statements.ts',
    from: 'decision = COALESCE(d.decision, EXCLUDED.decision),',
    to: 'decision = EXCLUDED.decision,',
    tests: tests(DECISIONS, 'PostgresDecisionStore lets the first decision stand'),
  },
  {
    name: 'half-commit-unasked',
    breaks: 'a commit sends its messages without looking at what was decided',
    file: 'lib/transactional-message/transactional-message.ts',
    from: "if (view.decision === 'committed') return this.#publish(transactionId, view)",
    to: 'if (view.decision) return this.#publish(transactionId, view)',
    tests: tests('test/transactional-message/sending.test.ts', 'sends nothing after a rollback, and refuses a commit'),
  },
]

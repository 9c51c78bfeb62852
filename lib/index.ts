/** Every public name, room by room. */

// retry
export { type Backoff, type ExponentialOptions, exponential, fixed, steps } from './backoff.ts'
export type { TlsOptions } from './connection/connection-options.ts'
// consumer
export type { Bind, ConsumeOptions } from './consume.ts'
export type { Consumer } from './consumer/consumer.ts'
export type { BodyFormat, IdentityPolicy } from './consumer/decode.ts'
export type { Context, ContextPublishOptions, Handler, Middleware } from './consumer/handler.ts'
// dead letters
export type { LetterEdit } from './dead-letter/copies.ts'
export type {
  DeadLetters,
  DeadLettersOptions,
  LookOptions,
} from './dead-letter/dead-letters.ts'
export type { EditedLetter } from './dead-letter/edit.ts'
export type { SkipReason } from './dead-letter/fate.ts'
export { FILTER_FIELDS, type FilterField, parseFilter } from './dead-letter/filter.ts'
export type { FullLetter } from './dead-letter/full.ts'
export type { LetterGroup } from './dead-letter/groups.ts'
export type { ImportOptions, ImportResult } from './dead-letter/import.ts'
export type { MoveOptions, MoveResult } from './dead-letter/move.ts'
export {
  type ReplayBatch,
  type ReplayOptions,
  type ReplayOutcome,
  type ReplayResult,
  skipText,
} from './dead-letter/replay.ts'
export { compileSelection, type Selection, timeOfLetter } from './dead-letter/selection.ts'
export type { Letter } from './dead-letter/story.ts'
export * from './errors.ts'
// idempotency
export type * from './idempotency/idempotency.ts'
export { MemoryIdempotencyStore, type MemoryIdempotencyStoreOptions } from './idempotency/memory.ts'
export { PostgresIdempotencyStore, type PostgresIdempotencyStoreOptions } from './idempotency/postgres.ts'
export type { Isolation } from './idempotency/postgres-handler-transaction.ts'
export type {
  TransactionalContext,
  TransactionalHandler,
  TransactionalHandlerOptions,
  TransactionalHandlerToolOptions,
  TransactionalOutbox,
  TransactionalPublishOptions,
  WrittenMessage,
} from './idempotency/postgres-transactional.ts'
export {
  type RedisClient,
  RedisIdempotencyStore,
  type RedisIdempotencyStoreOptions,
  type RedisTarget,
} from './idempotency/redis.ts'
// messages and errors
export type { Headers, HeaderValue, Message, OutgoingMessage } from './message.ts'
export { HEADER, newMessageId } from './message.ts'
// observability
export { type EventData, type EventName, type EventTable, eventNames, onEvent } from './observability/events.ts'
export type { Logger } from './observability/log.ts'
// outbox
export { OutboxDesk, type OutboxDeskOptions } from './outbox/desk.ts'
export type { DeskOutcome } from './outbox/desk-acts.ts'
export type { DeskOptions, DeskResult, DeskSelection, OutboxRef } from './outbox/desk-selection.ts'
export type { OutboxStatus } from './outbox/desk-status.ts'
export type { Hint, HintListener } from './outbox/hints.ts'
export { type AddedMessage, Outbox, type OutboxOptions } from './outbox/outbox.ts'
export type { OutboxMessage } from './outbox/prepare.ts'
export type { Relay } from './outbox/relay.ts'
export type { RelayOptions } from './outbox/relay-options.ts'
export type { FullOutboxRow, OutboxRow, OutboxState } from './outbox/rows.ts'
// producer
export type { PublishResult } from './producer/batch.ts'
export type { Producer, ProducerOptions, PublishOptions } from './producer/producer.ts'
export type { Receipt } from './producer/publisher.ts'
export type { RetryOptions } from './retry/policy.ts'
export type { Schema } from './schema.ts'
// databases
export type { LentClient, SqlClient, SqlFunction, SqlPool, SqlPoolClient } from './sql/client.ts'
export { checkSchema, type MigrationResult, migrate, type SchemaOptions, schemaVersion } from './sql/migrate.ts'
export { type MigrationSqlOptions, migrationSql } from './sql/migration-text.ts'
// the front door
export { type ConnectOptions, connect, type Health, type Surehop } from './surehop.ts'
export { delayTopology, levelFor } from './topology/delay.ts'
export { archiveQueueOf, deadQueueOf, workQueueTopology } from './topology/queues.ts'
// topology
export type { Binding, Exchange, Queue, Topology } from './topology/topology.ts'
// transactional messages
export type { CheckAnswer, Verdict } from './transactional-message/check-back.ts'
export type * from './transactional-message/decisions.ts'
export type {
  FullParkedMessage,
  ParkedMessage,
  ParkedTransaction,
  SendManyOptions,
  SentMany,
  TransactionCounts,
  Transactions,
  TransactionsOptions,
} from './transactional-message/desk.ts'
export type { Check, CheckContext } from './transactional-message/ledger.ts'
export { MemoryDecisionStore } from './transactional-message/memory.ts'
export type { TransactionalOptions } from './transactional-message/options.ts'
export { PostgresDecisionStore, type PostgresDecisionStoreOptions } from './transactional-message/postgres.ts'
export type { PrepareOptions } from './transactional-message/preparer.ts'
export { RedisDecisionStore, type RedisDecisionStoreOptions } from './transactional-message/redis.ts'
export type {
  CommitOutcome,
  Committed,
  Prepared,
  RunResult,
  Transactional,
  WorkContext,
} from './transactional-message/transactional-message.ts'

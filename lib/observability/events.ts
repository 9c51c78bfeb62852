/**
 * The table of named events. Each is a `node:diagnostics_channel` channel `surehop:<name>`; logs subscribe to it, and
 * metrics and traces can. No room imports a subscriber. No event carries a body or a password.
 */
import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import { InvalidOption } from '../errors.ts'
import { hintAt } from '../options.ts'

type Ids = { readonly messageId: string; readonly transactionId: string }
type Run = Ids & {
  readonly queue: string
  readonly type: string | undefined
  readonly attempt: number
  readonly generation: number
}

/** Name -> data. Durations in ms. */
export interface EventTable {
  /** A connection or channel changed its state. */
  'connection.state': {
    readonly role: string
    readonly from: string
    readonly to: string
    readonly url: string | undefined
    readonly error: Error | undefined
  }
  'connection.blocked': { readonly role: string; readonly reason: string }
  'connection.unblocked': { readonly role: string }
  'channel.state': {
    readonly role: string
    readonly from: string
    readonly to: string
    readonly error: Error | undefined
  }
  'topology.declared': { readonly steps: number; readonly durationMs: number }
  'publish.confirmed': Ids & {
    readonly exchange: string
    readonly routingKey: string
    readonly durationMs: number
    readonly sends: number
  }
  'publish.failed': Ids & {
    readonly exchange: string
    readonly routingKey: string
    readonly outcome: string
    readonly sends: number
    readonly error: Error
  }
  'publish.resent': Ids & {
    readonly exchange: string
    readonly routingKey: string
    readonly outcome: string
    readonly sends: number
  }
  'consumer.state': {
    readonly queue: string
    readonly from: string
    readonly to: string
    readonly error: Error | undefined
  }
  'message.completed': Run & { readonly durationMs: number }
  'message.failed': Run & { readonly error: unknown; readonly durationMs: number }
  'message.retried': Run & { readonly delayMs: number; readonly error: unknown }
  'message.duplicate': Run & { readonly why: 'completed' | 'superseded' }
  'message.put-off': Run & { readonly delayMs: number; readonly why: string }
  'message.dead-lettered': Run & { readonly reason: string; readonly error: unknown }
  'message.stale': Run & { readonly error: Error }
  'store.unavailable': { readonly queue: string; readonly error: Error }
  'store.available': { readonly queue: string; readonly outageMs: number }
  'store.warning': { readonly queue: string; readonly warning: string }
  'lease.lapsed': { readonly queue: string; readonly running: number }
  'dead-letter.replayed': Ids & { readonly queue: string; readonly generation: number }
  'dead-letter.discarded': Ids & { readonly queue: string }
  /** A relay sent a row: confirmed and routed. `ageMs` since it was written. */
  'outbox.sent': Ids & {
    readonly outbox: string
    readonly exchange: string
    readonly routingKey: string
    readonly ageMs: number
  }
  /** A row could not be sent now; its key waits for it. */
  'outbox.held': Ids & {
    readonly outbox: string
    readonly attempt: number
    readonly delayMs: number
    readonly error: Error
  }
  /** A row was given up on: see `surehop outbox list`. */
  'outbox.parked': Ids & { readonly outbox: string; readonly attempts: number; readonly error: Error }
  /** How far behind the relays are: told every few seconds. Age of the oldest row that waits to be sent, ms. */
  'outbox.backlog': {
    readonly outbox: string
    readonly backlog: number
    readonly oldestMs: number
    readonly held: number
    readonly parked: number
  }
  /** Something an operator or a developer should look at: an `add` outside a transaction, rows that no relay sends... */
  'outbox.warning': { readonly outbox: string; readonly warning: string }
  /** `starting`, `running`, `paused` (the broker or the database cannot be reached), `closing`, `closed`. */
  'relay.state': {
    readonly outbox: string
    readonly from: string
    readonly to: string
    readonly error: Error | undefined
  }
  /** The half message is stored: local work may begin. */
  'transaction.prepared': { readonly name: string; readonly transactionId: string; readonly messages: number }
  'transaction.decided': {
    readonly name: string
    readonly transactionId: string
    readonly decision: 'committed' | 'rolled-back'
    readonly by: string
  }
  /** All messages of a committed transaction are confirmed. */
  'transaction.published': { readonly name: string; readonly transactionId: string; readonly messages: number }
  /** Somebody was asked how a transaction ended. `answer` is `unknown` also when the check threw or took too long; then `error` says so. */
  'transaction.checked': {
    readonly name: string
    readonly transactionId: string
    readonly check: number
    readonly answer: 'commit' | 'rollback' | 'unknown'
    readonly error: unknown
  }
  /** Undecided after the last check: see `surehop transactions list`. */
  'transaction.parked': {
    readonly name: string
    readonly transactionId: string
    readonly checks: number
    readonly ageMs: number
  }
  /** Something an operator or a developer should look at: messages that cannot be published, an operator's verdict that came too late... */
  'transaction.warning': {
    readonly name: string
    readonly transactionId: string | undefined
    readonly warning: string
  }
}

/** Name of an event. */
export type EventName = keyof EventTable

/** The data of an event as subscribers get it: with the name of the instance that emitted it. */
export type EventData<N extends EventName> = EventTable[N] & { readonly instance: string }

/** All names, for subscribers that want everything. */
export const eventNames: readonly EventName[] = [
  'connection.state',
  'connection.blocked',
  'connection.unblocked',
  'channel.state',
  'topology.declared',
  'publish.confirmed',
  'publish.failed',
  'publish.resent',
  'consumer.state',
  'message.completed',
  'message.failed',
  'message.retried',
  'message.duplicate',
  'message.put-off',
  'message.dead-lettered',
  'message.stale',
  'store.unavailable',
  'store.available',
  'store.warning',
  'lease.lapsed',
  'dead-letter.replayed',
  'dead-letter.discarded',
  'outbox.sent',
  'outbox.held',
  'outbox.parked',
  'outbox.backlog',
  'outbox.warning',
  'relay.state',
  'transaction.prepared',
  'transaction.decided',
  'transaction.published',
  'transaction.checked',
  'transaction.parked',
  'transaction.warning',
]

const channels = new Map(eventNames.map((name) => [name, channel(`surehop:${name}`)]))

/** Emits events in the name of one instance (one `connect()`). */
export class Events {
  readonly instance: string

  constructor(instance: string) {
    this.instance = instance
  }

  /** Is anybody listening? Asked before building the data of an event on a hot path. */
  wanted(name: EventName): boolean {
    return channels.get(name)!.hasSubscribers
  }

  emit<N extends EventName>(name: N, data: EventTable[N]): void {
    const target = channels.get(name)!
    if (target.hasSubscribers) target.publish({ ...data, instance: this.instance })
  }
}

/**
 * Subscribes to one event of every instance in this process.
 * @returns a function that ends the subscription
 * @throws InvalidOption for a name that is none, which would never be heard of
 */
export function onEvent<N extends EventName>(name: N, listener: (data: EventData<N>) => void): () => void {
  if (!channels.has(name))
    throw new InvalidOption(`onEvent(): unknown event "${name}", ${hintAt(String(name), eventNames)}`)
  const wrapped = (data: unknown) => listener(data as EventData<N>)
  subscribe(`surehop:${name}`, wrapped)
  return () => void unsubscribe(`surehop:${name}`, wrapped)
}

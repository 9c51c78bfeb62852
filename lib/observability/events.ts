/**
 * The table of named events. Each is a `node:diagnostics_channel` channel `surehop:<name>`; logs subscribe to it, and
 * metrics and traces can. No room imports a subscriber. No event carries a body or a password.
 */
import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'

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
 */
export function onEvent<N extends EventName>(name: N, listener: (data: EventData<N>) => void): () => void {
  const wrapped = (data: unknown) => listener(data as EventData<N>)
  subscribe(`surehop:${name}`, wrapped)
  return () => void unsubscribe(`surehop:${name}`, wrapped)
}

// What the processes of the fleet are told, and what they say.

import type { Path } from '../ledger.ts'
import type { RedisPlace, Role } from '../world.ts'

/** What a process is there for, and with what. */
export interface Job {
  readonly role: Role
  /** Its number, and that of its ledger. */
  readonly worker: number
  readonly folder: string
  readonly seed: number
  readonly amqp: readonly string[]
  readonly redis: RedisPlace
  /** With the schema of Surehop's tables, and of ours, on its search path. */
  readonly postgres: string
  readonly names: Names
  /** Messages that this process is to offer in all; undefined: until told that it is enough. */
  readonly share: number | undefined
  /** Messages per second of this process. */
  readonly perSecond: number
  readonly concurrency: number
  readonly handlerMs: number
  /** Of a thousand messages. */
  readonly failing: { readonly late: number; readonly dead: number; readonly revived: number }
  readonly leaseMs: number
  readonly singleActive: readonly Path[]
  readonly sabotage?: Sabotage | undefined
}

/**
 * A consumer that breaks its promises, so that the lab can be seen to notice: acks before the effect; no record of what was done;
 * a record that anybody may write, whoever holds its lease.
 */
export type Sabotage = 'acks-first' | 'no-record' | 'no-owner-check' | 'no-good-end'

/** Made by the fleet, so that no two meet. */
export interface Names {
  /** Sent as `app_id`: what is ours in queues that all share. */
  readonly service: string
  /** Queue of the direct path. */
  readonly direct: string
  /** Exchange and queue of the outbox path. */
  readonly events: string
  readonly inbox: string
  /** Queue of what the effects of the outbox path say. */
  readonly told: string
  /** Queue whose letters nobody adds to or takes from. */
  readonly quiet: string
  /** Name of the sender of half messages. */
  readonly halves: string
  /** First part of every key in Redis. */
  readonly prefix: string
  /** Schema of all tables. */
  readonly schema: string
}

/** Names of the two outboxes: of the writers, and of the inbox consumers. */
export const OUTBOXES = { orders: 'orders', told: 'told' } as const

/** Type of the messages whose letters an operator is to send again. */
export const REVIVED = 'lab.revived'

/** From the fleet. */
export type Order =
  | { readonly start: Job }
  /** Offer nothing for now; go on. */
  | { readonly flow: 'stop' | 'go' }
  /** Offer nothing new. */
  | { readonly enough: true }
  /** End in good order. */
  | { readonly close: true }

/** To the fleet. */
export type Word =
  /** It works; all that it has offered, and will offer, is accepted. */
  | 'ready'
  | 'accepted'
  /** A connection to a broker begins, or has ended; by the port here that it comes from. */
  | { readonly moored: number }
  | { readonly unmoored: number }

/** What a process is at. */
export interface Work {
  flow?(now: 'stop' | 'go'): void
  enough?(): void
  close(): Promise<void>
}

/** How a process ends that did not find its services. */
export const TRY_AGAIN = 75

/** Attempts of a handler, and the wait between them; a message that is to be handled late fails once. */
export const RETRY_DELAY_MS = 200
export const RETRY = {
  attempts: 4,
  backoff: { delayMs: () => RETRY_DELAY_MS, maxDelayMs: () => RETRY_DELAY_MS },
} as const

/** Processes die here as often as they can: a message that happened to be with three of them is not to be parked. */
export const MAX_STARTS = 1_000

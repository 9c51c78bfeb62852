// What the processes of this scenario are told, and what they say.

import type { Plan } from './steps.ts'

/** What a process is there for. */
export type Role = 'writer' | 'relay' | 'consumer' | 'half' | 'naive writer' | 'naive consumer'

/** The names of one line of queues: they run side by side, so that a lease that must run out holds up one of them only. */
export interface Place {
  readonly amqp: string
  readonly redis: string
  /** With the schema of Surehop's tables, and of ours, on its search path. */
  readonly database: string
  readonly schema: string
  /** Exchange of the first leg: from the outbox and from half messages, to the consumer and to the first witness. */
  readonly events: string
  /** Queue of the consumer. */
  readonly work: string
  /** Exchange of the second leg: what the consumer says, to the second witness. */
  readonly told: string
  /** Names of the outboxes of the writers and of the consumer. */
  readonly orders: string
  readonly stock: string
  /** Name of the transactional sender, and the file that is its database. */
  readonly charges: string
  readonly book: string
}

/** From the parent. */
export type Order =
  | { readonly start: { readonly role: Role; readonly place: Place; readonly file: string; readonly plan?: Plan } }
  | { readonly plan: Plan }
  /** Begin no transaction any more, and stay. */
  | { readonly rest: true }
  /** End in good order. */
  | { readonly stop: true }

/** What a process is at. */
export interface Work {
  rest?(): void
  close(): Promise<void>
}

/** Leases as short as they may be where a process dies each second. */
export const LEASE_MS = 1_000

/** How a process ends whose services did not answer in time. */
export const TRY_AGAIN = 75

/** Most processes die among their first transactions; those that live on go slowly, and leave the machine to the others. */
export function pauseAfter(transactions: number): number {
  return transactions < 8 ? 20 : 300
}

/** Names without what makes them unique, so that steps are called the same in every run. */
export function plainName(name: string): string {
  return name.replace(/-[0-9a-f]{10}/g, '')
}

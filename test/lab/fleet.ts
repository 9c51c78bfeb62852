// The fleet: the processes that work while the lab is at its worst, what they are told, and their replacements.
//
// How the runner uses it:
//
//     const fleet = await startFleet({ amqp: proxies.map(({ url }) => url), redis, postgres, seed, folder })
//     ... inject faults ...
//     await fleet.enough(60_000)      // offers nothing new
//     await fleet.drained(120_000)    // all has ended; rejects with what is missing
//     await fleet.close()             // what lies where is on record now
//     const verdict = reconcile(new LedgerReader(fleet.folder).entries(), { limits, ...fleet.promised })
//     await fleet.discard()

import type { Promised } from './reconcile.ts'
import type { RedisPlace, Role, Workload } from './world.ts'

/** What the workers know of the world: proxies, never the servers themselves; and how much work there is. */
export interface FleetSettings {
  /** URLs of the proxies in front of the nodes. */
  readonly amqp: readonly string[]
  readonly redis: RedisPlace
  /** URL of the proxy in front of Postgres; the fleet makes a schema of its own there. */
  readonly postgres: string
  readonly seed: number
  /** Where the ledger is kept. Default: a new folder in the system's temporary one. */
  readonly folder?: string
  /** How many of each. Default: 2 producers, 2 outbox writers, 2 relays, 3 consumers, 2 inbox consumers. */
  readonly workers?: Partial<Readonly<Record<Role, number>>>
  /** Messages offered per second, all processes of a path together. Default 300 and 60. */
  readonly perSecond?: { readonly direct?: number; readonly outbox?: number }
  /** Messages in all; the fleet stops offering then. Default: until `enough`. */
  readonly messages?: { readonly direct?: number; readonly outbox?: number }
  /** Messages accepted and not yet handled, beyond which producers wait, per path. Default 5,000. */
  readonly backlog?: number
  /** Paths on which one instance works and others stand by, so that order holds over instances. Default none: all share the work. */
  readonly singleActive?: readonly ('direct' | 'outbox')[]
  /** Handlers at a time per consumer process. Default 20. */
  readonly concurrency?: number
  /** Longest run of a handler, ms; each takes its time from 0 to that. Default 20. */
  readonly handlerMs?: number
  /** Of a thousand messages, so many fail at first, and so many for good. Default 20 and 2. */
  readonly failing?: { readonly late?: number; readonly dead?: number }
  /** Default 3,000. */
  readonly leaseMs?: number
}

/** A fleet at work. */
export interface WorkingFleet extends Workload {
  /** For `reconcile`. */
  readonly promised: Promised
  /** Resolves when all `messages` have been accepted; never without `messages`. */
  readonly offeredAll: Promise<void>
}

/** Builds the workers, makes schema, queues and exchange, and starts all. @returns when all work */
export async function startFleet(_settings: FleetSettings): Promise<WorkingFleet> {
  throw new Error('not written yet')
}

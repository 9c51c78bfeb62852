// The ledger of the lab: what each process knew, in append-only files of its own that survive kill -9.
//
// One folder a run, one file a process, named by its number; the fleet's own is 0. One short line an entry (`ledger/lines.ts`),
// with the time of the machine's monotonic clock, which all processes share and no shifted clock moves. What lies in Postgres and in
// the queues at the end is written down as entries, too: the folder alone is enough to reconcile a run, today and tomorrow.
//
// Promises: an entry that was written is there after kill -9; a line that a death has torn is dropped by the reader, and counted.
// Does NOT promise anything over a crash of the machine.

import type { CastEntry } from './ledger/cast.ts'

/**
 * How a message got to the broker. `direct`: publisher confirms. `outbox`: a row of a committed transaction, sent by a relay. `half`: a
 * half message, prepared before its work and sent when that is done.
 */
export type Path = 'direct' | 'outbox' | 'half'

/**
 * What is to become of it: handled; handled at the second attempt; never (its letter lies in `.dead`); or handled when its letter was
 * sent again, once or twice.
 */
export type Fate = 'well' | 'late' | 'dead' | 'revived'

/** What whoever offered a message was told. `refused`: of a transaction that has surely not committed; the rest as the producer's error says it. */
export type Outcome = 'confirmed' | 'unknown' | 'refused' | 'nacked' | 'returned' | 'not-sent'

/** How a run was recorded to have ended. */
export type End = 'completed' | 'failed' | 'returned' | 'dead'

/** One line. `at`, `since`, `from`: ns of the monotonic clock. */
export type Entry =
  /** A producer is about to publish; or an outbox writer's transaction is about to commit. `n` counts up within a key, without gaps. */
  | {
      readonly is: 'offered'
      readonly at: number
      readonly id: string
      readonly path: Path
      readonly key: string
      readonly n: number
      readonly fate: Fate
    }
  | { readonly is: 'told'; readonly at: number; readonly id: string; readonly outcome: Outcome }
  /** Whoever offered it will never offer this id again, and was never told `confirmed`. */
  | { readonly is: 'withdrawn'; readonly at: number; readonly id: string }
  /** A handler began. `token`: its fencing token; `attempt`, `generation`: as its context says. */
  | {
      readonly is: 'started'
      readonly at: number
      readonly id: string
      readonly token: number
      readonly attempt: number
      readonly generation: number
    }
  /** It is about to fail by an error of its own, not because its signal fired. On record before the library hears of it. */
  | { readonly is: 'threw'; readonly at: number; readonly id: string; readonly token: number }
  /** The effect itself, of the direct path: written into storage that refuses older tokens, see `reconcile.ts`. */
  | { readonly is: 'effect'; readonly at: number; readonly id: string; readonly token: number }
  /** The store has recorded the end of a run; `since`: when it was asked to for the first time. */
  | {
      readonly is: 'ended'
      readonly at: number
      readonly id: string
      readonly token: number
      readonly since: number
      readonly as: End
    }
  /** The store has refused to record the end of a run, or the database to commit it; `since` as above. */
  | {
      readonly is: 'denied'
      readonly at: number
      readonly id: string
      readonly token: number
      readonly since: number
      readonly as: End
    }
  /** The store has refused to give this message out: another process holds it. */
  | { readonly is: 'put-off'; readonly at: number; readonly id: string }
  /** The store has told this process that its lease had run out. */
  | { readonly is: 'lapsed'; readonly at: number }
  /** A copy was dropped unrun. */
  | { readonly is: 'dropped'; readonly at: number; readonly id: string }
  /** The store has answered this process nothing between `from` and `at`, for longer than its lease. */
  | { readonly is: 'silent'; readonly at: number; readonly from: number }
  /** A consumer of this process lost its channel: what it held goes back to its queue. */
  | { readonly is: 'unmoored'; readonly at: number }
  /** A message caused by the effect of message `of` has arrived at the end of the second leg; all copies are noted. */
  | { readonly is: 'output'; readonly at: number; readonly id: string; readonly of: string }
  | CastEntry
  | Fact

/** What the fleet notes about its processes, and at the end about the world. */
export type Fact =
  /**
   * What holds in this run. `inOrder`: paths on which one instance works and others stand by, so that the messages of a key are
   * handled in order. `redelivered`: where the broker puts what a lost consumer held; RabbitMQ 3.10 at the back of the queue.
   * `attempts`, `delayMs`: of the consumers' retry policy.
   */
  | {
      readonly is: 'rules'
      readonly at: number
      readonly leaseMs: number
      readonly concurrency: number
      readonly inOrder: readonly Path[]
      readonly redelivered: 'front' | 'back'
      readonly attempts: number
      readonly delayMs: number
    }
  /**
   * Redis forgot what it was told between `since` and `at` (`since` 0: all that it ever was told); nobody has noticed anything of that
   * before `from`. Written by the fault, which knows.
   */
  | { readonly is: 'forgot'; readonly at: number; readonly from: number; readonly since: number }
  | { readonly is: 'born'; readonly at: number; readonly worker: number; readonly role: string }
  /** `at`: before the signal is sent, or when its end was noticed. */
  | { readonly is: 'died'; readonly at: number; readonly worker: number; readonly how: 'killed' | 'closed' | 'crashed' }
  /** The connections of a process to the brokers were reset; it may notice much later. */
  | { readonly is: 'cut-off'; readonly at: number; readonly worker: number }
  /** A business row that is there at the end: its transaction has committed. */
  | { readonly is: 'committed'; readonly at: number; readonly id: string }
  /** An effect of the outbox path that is there at the end; `place`: effects in the order in which they were made. */
  | { readonly is: 'done'; readonly at: number; readonly id: string; readonly place: number }
  /** It lies in the dead letters at the end. */
  | { readonly is: 'dead'; readonly at: number; readonly id: string; readonly why: string }
  /** It lies somewhere else at the end: in a queue, in the delay, in an outbox. */
  | { readonly is: 'left'; readonly at: number; readonly id: string; readonly where: string }

/** An entry, and the process that wrote it. */
export type Noted = Entry & { readonly by: number }

/** The machine's monotonic clock, ns: exact for the first hundred days after a boot, and to a few ns beyond. */
export function monotonicNs(): number {
  const [seconds, ns] = process.hrtime()
  return seconds * 1e9 + ns
}

/** Puts a sender of transactional messages together. */
import type { Connection } from '../connection/connection.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Declarer } from '../topology/declarer.ts'
import { CheckQueue } from './check-queue.ts'
import { checkQueueOf, halfTopology } from './half-queues.ts'
import { Ledger } from './ledger.ts'
import { settingsOf, type TransactionalOptions } from './options.ts'
import { Outlet } from './outlet.ts'
import { ParkedWatch } from './parked-watch.ts'
import { PreparedHere } from './prepared-here.ts'
import { Preparer } from './preparer.ts'
import { Transactional } from './transactional-message.ts'

/** What the front door lends. */
export interface Lent {
  readonly connection: Connection
  readonly declarer: Declarer
  readonly publisher: Publisher
  readonly service: string
  readonly drainMs: number
  /** Undecided half messages are unacked no longer than this, ms. Default 25 minutes: below the broker's consumer timeout of 30. */
  readonly holdMs?: number
}

const HOLD_MS = 25 * 60_000

/** @throws InvalidOption */
export function createTransactional(name: string, options: TransactionalOptions, lent: Lent): Transactional {
  const settings = settingsOf(name, options, lent.drainMs)
  const { connection, declarer, publisher, service } = lent
  const { decisions: store, check, checkTimeoutMs, retentionMs, schemas, firstCheckMs, checkCapMs } = settings
  const { events } = connection.options
  const ledger = new Ledger({ store, scope: { name, retentionMs }, check, checkTimeoutMs, events })
  const outlet = new Outlet(publisher, declarer)
  const prepared = new PreparedHere()
  const topology = halfTopology(name, firstCheckMs)
  const queue = new CheckQueue({
    ...lent,
    queue: checkQueueOf(name),
    topology,
    ledger,
    outlet,
    limits: settings,
    maxUndecided: settings.maxUndecided,
    concurrency: settings.concurrency,
    drainMs: settings.drainMs,
    holdMs: lent.holdMs ?? HOLD_MS,
    ended: (transactionId) => prepared.drop(transactionId),
  })
  const watch = new ParkedWatch({ connection, publisher, ledger, everyMs: checkCapMs })
  const preparer = new Preparer({ service, schemas, topology, publisher, declarer, ledger })
  const ready = async () => {
    for (const warning of await store.check()) events.emit('store.warning', { queue: checkQueueOf(name), warning })
    declarer.forget(name)
    await declarer.declare(topology)
  }
  return new Transactional({ name, settings, ready, ledger, preparer, outlet, queue, watch, prepared })
}

/** Who runs against whom for the outbox. Their modules are loaded when they run, so that they cost no other contest memory. */

import { type Column, type Contest, rates } from './contest.ts'
import type { Job } from './job.ts'

const relayOf = () => import('./outbox-relay.ts')
const byHand = () => import('./outbox-by-hand.ts')
const boss = () => import('./outbox-pg-boss.ts')
const trx = () => import('./outbox-pg-transactional-outbox.ts')
const idle = () => import('./outbox-latency.ts')
const write = () => import('./outbox-write.ts')

const KEYS = 1_000

/** For one that needs minutes for what others do in seconds. */
const fewer = (job: Job): Job => ({
  ...job,
  warmup: Math.ceil(job.warmup / 20),
  messages: Math.ceil(job.messages / 20),
})

const direct = async (job: Job) => (await relayOf()).publishDirectly(job)

const surehop = {
  prepare: async (job: Job) => (await relayOf()).prepareOutbox(job),
  run: async (job: Job) => (await relayOf()).surehopRelay(job),
}

const handWritten = {
  prepare: async (job: Job) => (await byHand()).prepareByHand(job),
  run: async (job: Job) => (await byHand()).relayByHand(job),
}

const pgBoss = {
  prepare: async (job: Job) => (await boss()).preparePgBoss(job),
  run: async (job: Job) => (await boss()).pgBossRelay(job),
}

const transactionalOutbox = {
  prepare: async (job: Job) => (await trx()).prepareTransactionalOutbox(fewer(job)),
  run: async (job: Job) => (await trx()).transactionalOutboxRelay(fewer(job)),
}

const service = async (job: Job) => (await idle()).prepareService(job)

const times: readonly Column[] = [
  { head: 'p50, ms', figure: 'p50Ms' },
  { head: 'p99, ms', figure: 'p99Ms' },
  { head: 'longest, ms', figure: 'maxMs' },
]

const RELAYING =
  'From the first fetch until all rows are settled; published mandatory, persistent, confirmed; rows of 1 KiB of JSON.'
const FEWER = 'with a twentieth of the messages, since each of its fetches sorts all that is unprocessed'

export const outboxContests: Readonly<Record<string, Contest>> = {
  'outbox-relay': {
    title: 'Outbox: relay committed rows to a quorum queue, without keys',
    note: [
      RELAYING,
      'By hand: one loop of SELECT ... FOR UPDATE SKIP LOCKED LIMIT 500, publish, DELETE.',
      'pg-boss: 2 workers, batchSize 500, pollingIntervalSeconds 0.5 (the least), woken by notifyWorker() after each batch, priority off, maintenance off.',
      `pg-transactional-outbox: polling listener, "parallel" messages, batches of 50 on as many connections, a fetch when a batch is done, protections off; ${FEWER}.`,
    ].join('\n'),
    columns: rates('message'),
    size: { full: 20_000, quick: 3_000 },
    turns: 2,
    contestants: {
      'Surehop publishMany(), no outbox': direct,
      'Surehop relay': surehop,
      'SKIP LOCKED loop by hand': handWritten,
      'pg-boss, a job per message': pgBoss,
      'pg-transactional-outbox': transactionalOutbox,
    },
  },
  'outbox-keys': {
    title: `Outbox: relay committed rows to a quorum queue, ${KEYS.toLocaleString('en-US')} keys in order`,
    note: [
      RELAYING,
      'pg-boss: policy "singleton" by key, one loop of fetch(500), publish, complete(): the nearest it has to an order per key.',
      `pg-transactional-outbox: a key is a segment; else as above, ${FEWER}.`,
    ].join('\n'),
    columns: rates('message'),
    size: { full: 20_000, quick: 3_000 },
    turns: 2,
    setting: { keys: KEYS },
    contestants: {
      'Surehop publishMany(), no outbox': direct,
      'Surehop relay': surehop,
      'pg-boss, policy singleton': pgBoss,
      'pg-transactional-outbox': transactionalOutbox,
    },
  },
  'outbox-latency': {
    title: 'Outbox: from COMMIT to the handler, little to do',
    note: 'Single transactions (a row of business and a message) 20 to 80 ms apart; writer and handler read one clock.',
    columns: times,
    size: { full: 100, quick: 40 },
    turns: 2,
    setting: { bodyBytes: 256 },
    contestants: {
      'relay here, outbox.transaction()': {
        prepare: service,
        run: async (job) => (await idle()).relayHereByTransaction(job),
      },
      'relay here, own BEGIN and COMMIT': {
        prepare: service,
        run: async (job) => (await idle()).relayHereByBegin(job),
      },
      'relay in another process, outbox.transaction()': {
        prepare: service,
        run: async (job) => (await idle()).relayElsewhereByTransaction(job),
      },
      'relay in another process, own BEGIN and COMMIT': {
        prepare: service,
        run: async (job) => (await idle()).relayElsewhereByBegin(job),
      },
    },
  },
  'outbox-write': {
    title: 'Outbox: what it costs the writer, 10 connections',
    note: 'BEGIN, INSERT of a row of business, the message, COMMIT. By hand: a table of position, id and body.',
    columns: rates('transaction'),
    size: { full: 10_000, quick: 1_000 },
    turns: 2,
    setting: { connections: 10 },
    contestants: {
      'INSERT alone': { prepare: service, run: async (job) => (await write()).insertAlone(job) },
      '+ Outbox.add(), no key': { prepare: service, run: async (job) => (await write()).insertAndAdd(job) },
      '+ Outbox.add(), 1,000 keys': { prepare: service, run: async (job) => (await write()).insertAndAddKeyed(job) },
      '+ INSERT by hand': {
        prepare: async (job) => (await write()).prepareTwoTables(job),
        run: async (job) => (await write()).insertTwice(job),
      },
      '+ pg-boss send()': {
        prepare: async (job) => (await write()).prepareBoss(job),
        run: async (job) => (await write()).insertAndSend(job),
      },
    },
  },
}

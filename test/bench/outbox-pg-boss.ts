/**
 * pg-boss 10 as a relay: a job per message; its handler publishes, and the jobs are completed after the confirms.
 *
 * With keys, the queue has the policy "singleton", at most one active job per key, which is the nearest it has to an order per
 * key. It is fetched by one loop that completes before it fetches again, since a second one would be refused the keys that the first
 * has in hand.
 */
import PgBoss from 'pg-boss'
import { v7 } from 'uuid'
import { type Job, type Measured, stopwatch } from './job.ts'
import { type ConfirmedPublish, confirming, untilNone } from './outbox-by-hand.ts'
import { type Body, bodyOf, keyOf, type Part, pieces, sizeOf } from './outbox-messages.ts'

/** Batches of 100 to 1,000 and 1 to 4 workers differed by less than the machine's noise. */
export const BATCH = 500
export const WORKERS = 2

type Jobs = PgBoss.Job<Body>[]

export async function preparePgBoss(job: Job): Promise<void> {
  const boss = await started(job)
  for (const part of ['warm', 'measured'] as const) {
    await boss.createQueue(part, { name: part, policy: job.keys > 0 ? 'singleton' : 'standard' })
    for (const some of pieces(sizeOf(part, job), BATCH)) await boss.insert(some.map((n) => jobOf(n, part, job)))
  }
  await boss.stop({ graceful: false })
}

/** Jobs of the same microsecond go by their ids. */
function jobOf(n: number, name: Part, job: Job): PgBoss.JobInsert<Body> {
  const key = keyOf(n, job)
  return { id: v7(), name, data: bodyOf(n, job), ...(key === undefined ? {} : { singletonKey: key }) }
}

/** Without its maintenance and its clock, which would only compete for the machine. */
export async function started({ databaseUrl, schema }: Job): Promise<PgBoss> {
  const quiet = { supervise: false, schedule: false }
  const boss = new PgBoss({ connectionString: databaseUrl, schema, max: 10, ...quiet })
  boss.on('error', (error) => {
    throw error
  })
  return await boss.start()
}

export async function pgBossRelay(job: Job): Promise<Measured> {
  const boss = await started(job)
  const publish = await confirming(job)
  const drain = job.keys > 0 ? fetchAll : workAll
  await drain('warm', job, boss, publish)
  const stop = stopwatch(job.messages)
  await drain('measured', job, boss, publish)
  return stop()
}

/**
 * Workers as documented. They look for jobs every half second, the shortest that is allowed; `notifyWorker` makes them go on at
 * once while there are jobs.
 */
async function workAll(part: Part, job: Job, boss: PgBoss, publish: ConfirmedPublish): Promise<void> {
  let left = sizeOf(part, job)
  const ids: string[] = []
  await new Promise<void>((resolve, reject) => {
    const handle = async (jobs: Jobs) => {
      await Promise.all(jobs.map(({ id, data }) => publish(contentOf(data), id)))
      left -= jobs.length
      if (left === 0) return resolve()
      for (const id of ids) boss.notifyWorker(id)
    }
    const options = { batchSize: BATCH, pollingIntervalSeconds: 0.5, priority: false }
    const worker = () => boss.work<Body>(part, options, handle).then((id) => ids.push(id))
    Promise.all(Array.from({ length: WORKERS }, worker)).catch(reject)
  })
  // The last completion is under way.
  await untilNone(async () => (await boss.getQueueSize(part, { before: 'completed' })) > 0)
  await boss.offWork(part)
}

async function fetchAll(part: Part, _: Job, boss: PgBoss, publish: ConfirmedPublish): Promise<void> {
  for (;;) {
    const jobs = await boss.fetch<Body>(part, { batchSize: BATCH, priority: false })
    if (jobs.length === 0) return
    await Promise.all(jobs.map(({ id, data }) => publish(contentOf(data), id)))
    await boss.complete(
      part,
      jobs.map(({ id }) => id),
    )
  }
}

function contentOf(data: Body): Buffer {
  return Buffer.from(JSON.stringify(data))
}

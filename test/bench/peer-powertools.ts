/**
 * @aws-lambda-powertools/idempotency with its Redis layer (`CachePersistenceLayer` on @redis/client, which writes the commands of
 * one tick together), around the handler of an amqplib consumer.
 */
import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency'
import { CachePersistenceLayer } from '@aws-lambda-powertools/idempotency/cache'
import { createClient } from '@redis/client'
import { consumedBy, handler, REMEMBER_MS } from './consume-amqplib.ts'
import { type Job, type Measured, Meter } from './job.ts'

/** How long another process would leave a message alone that this one has begun; without it, it warns of each message. */
const IN_PROGRESS_MS = 15_000

/** The message id is the key; no local cache, its default. */
export async function deduplicated(job: Job): Promise<Measured> {
  const meter = new Meter(job)
  const idempotent = await idempotentBy(job, () => handler(meter))
  return consumedBy(job, meter, ({ properties }) => idempotent(String(properties.messageId)))
}

/** A function that runs once per id. */
export async function idempotentBy(job: Job, run: () => Promise<void>): Promise<(id: string) => Promise<unknown>> {
  const client = await createClient({ url: job.redisUrl }).connect()
  const config = new IdempotencyConfig({ expiresAfterSeconds: REMEMBER_MS / 1_000 })
  config.registerLambdaContext({ getRemainingTimeInMillis: () => IN_PROGRESS_MS } as never)
  const persistenceStore = new CachePersistenceLayer({ client: client as never })
  return makeIdempotent(async (_id: string) => run(), { persistenceStore, config, keyPrefix: job.queue })
}

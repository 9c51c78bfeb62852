// Whether the services do what tests ask of them: a test that fails because one of them is gone has noticed no fault.

import { connect } from 'amqplib'
import { Redis } from 'ioredis'
import { Client } from 'pg'
import { within } from '../../lib/deadline.ts'

/** Where they are. */
export type Environment = Readonly<Record<string, string | undefined>>

/** On a machine with much else to do, too. */
const ANSWERS_WITHIN_MS = 20_000

const ASKED = { AMQP_URL: askRabbitMq, REDIS_URL: askRedis, DATABASE_URL: askPostgres } as const

/** What each service that the environment names fails with, in one text; undefined where each takes something and gives it back. */
export async function silentOf(env: Environment): Promise<string | undefined> {
  const failures = await Promise.all(
    Object.entries(ASKED).map(async ([name, ask]) => {
      const url = env[name]
      if (!url) return []
      const late = () => new Error(`no answer within ${ANSWERS_WITHIN_MS} ms`)
      return within(ask(url), ANSWERS_WITHIN_MS, late).then(
        () => [],
        (error: Error) => [`${name}: ${error.message || error.name}`],
      )
    }),
  )
  const texts = failures.flat()
  return texts.length === 0 ? undefined : texts.join('; ')
}

/** A message goes in, is confirmed, and comes out: a broker that blocks publishers takes the connection, and no message. */
async function askRabbitMq(url: string): Promise<void> {
  const connection = await connect(url)
  connection.on('error', () => {})
  try {
    const channel = await connection.createConfirmChannel()
    const { queue } = await channel.assertQueue('', { exclusive: true })
    channel.sendToQueue(queue, Buffer.from('?'))
    await channel.waitForConfirms()
    if (!(await channel.get(queue, { noAck: true }))) throw new Error('a confirmed message is not in its queue')
  } finally {
    await connection.close().catch(() => {})
  }
}

/** Written, too: one that is full, or a replica, answers a PING. */
async function askRedis(url: string): Promise<void> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, maxRetriesPerRequest: 0 })
  // What connect() rejects with says only that the connection is closed.
  let reason: Error | undefined
  redis.on('error', (error: Error) => {
    reason ??= error
  })
  try {
    await redis.connect()
    await redis.set('surehop-mutants', '?', 'PX', 1_000)
  } catch (error) {
    throw reason ?? error
  } finally {
    redis.disconnect()
  }
}

async function askPostgres(url: string): Promise<void> {
  const client = new Client(url)
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('CREATE TEMPORARY TABLE asked AS SELECT 1')
  } finally {
    await client.end().catch(() => {})
  }
}

// Names that no other test uses, so that tests share one broker and one Redis and may run in any order.
//
// Promises: queues and exchanges named here are deleted at the end of the test process, with the queues that the toolkit
// names after them. Outside mocha, call `deleteUnique`. Does not promise deletion after a crash: the run's own broker is
// gone then anyway.

import { randomBytes } from 'node:crypto'
import { type ChannelModel, connect } from 'amqplib'

const SUFFIXES = ['', '.dead', '.archive']
const queues = new Set<string>()
const exchanges = new Set<string>()

/** `name` with a suffix of its own; for Redis keys, message types and so on. */
export function unique(name: string): string {
  return `${name}-${randomBytes(5).toString('hex')}`
}

/** A queue name; the queue, its dead letters and its archive are deleted at the end. */
export function uniqueQueue(name = 'queue'): string {
  return remember(queues, unique(name))
}

/** An exchange name; the exchange is deleted at the end. */
export function uniqueExchange(name = 'exchange'): string {
  return remember(exchanges, unique(name))
}

function remember(names: Set<string>, name: string): string {
  names.add(name)
  return name
}

/** Deletes what was named so far from the broker of AMQP_URL; a broker that is gone is no error. */
export async function deleteUnique(url = process.env['AMQP_URL']): Promise<void> {
  if (!url || queues.size + exchanges.size === 0) return
  const connection = await connect(url).catch(() => undefined)
  if (!connection) return
  connection.on('error', () => {})
  for (const base of queues) for (const suffix of SUFFIXES) await deleteOne(connection, 'deleteQueue', base + suffix)
  for (const name of exchanges) await deleteOne(connection, 'deleteExchange', name)
  queues.clear()
  exchanges.clear()
  await connection.close().catch(() => {})
}

// A refused deletion closes the channel, hence one channel each.
async function deleteOne(connection: ChannelModel, verb: 'deleteQueue' | 'deleteExchange', name: string) {
  const channel = await connection.createChannel()
  channel.on('error', () => {})
  await channel[verb](name).then(
    () => channel.close(),
    () => undefined,
  )
}

if (typeof after === 'function') after('delete the queues and exchanges of this test process', () => deleteUnique())

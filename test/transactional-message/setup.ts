// What the tests of this room share: senders with quick schedules and a queue of their own, and eyes on the broker.

import type { GetMessage } from 'amqplib'
import { Connection } from '../../lib/connection/connection.ts'
import {
  type DecisionStore,
  type OutboxMessage,
  RedisDecisionStore,
  type Surehop,
  type Transactional,
  type TransactionalOptions,
} from '../../lib/index.ts'
import { Events } from '../../lib/observability/events.ts'
import { Publisher } from '../../lib/producer/publisher.ts'
import { Declarer } from '../../lib/topology/declarer.ts'
import { amqpUrl, connected, counts, raw, redisUrl, taken, toClose } from '../consumer/setup.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'

export {
  amqpUrl,
  closeAll,
  connected,
  counts,
  event,
  raw,
  redisUrl,
  sendRaw,
  Tally,
  taken,
  toClose,
} from '../consumer/setup.ts'

/** What a promise rejects with; an error of its own when it does not. */
export async function caught(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  throw new Error('expected a rejection, and it resolved')
}

/** Decisions of this test's own. */
export function redisDecisions(url = redisUrl(), prefix = unique('decisions')): RedisDecisionStore {
  return toClose(new RedisDecisionStore({ url }, { prefix, commandTimeoutMs: 2_000 }))
}

/** A sender, the queue its messages go to, and what it is made of. */
export interface Bench {
  readonly surehop: Surehop
  readonly payments: Transactional
  readonly name: string
  readonly work: string
  readonly decisions: DecisionStore
}

/** Times short enough for tests. */
export const QUICK = { firstCheckMs: 150, checkCapMs: 300, checks: 3 } as const

/** Opens a sender with quick checks; `check` says "unknown" unless told otherwise. */
export async function bench(options: Partial<TransactionalOptions> & { readonly name?: string } = {}): Promise<Bench> {
  const { name = senderName(), ...rest } = options
  const surehop = await connected()
  const work = uniqueQueue('work')
  await surehop.declare({ queues: [{ name: work, arguments: { 'x-queue-type': 'quorum' } }] })
  const decisions = rest.decisions ?? redisDecisions()
  const payments = await surehop.transactional(name, { check: () => 'unknown', ...QUICK, ...rest, decisions })
  return { surehop, payments, name, work, decisions }
}

const names = new Set<string>()

/** A sender's name; its queues are deleted at the end. */
export function senderName(): string {
  const name = unique('payments')
  names.add(name)
  return name
}

export function messageTo(queue: string, body: unknown = { paid: 1 }, more: object = {}): OutboxMessage {
  return { queue, type: 'payment.made', body, ...more } as OutboxMessage
}

/** The bytes of a half message of another make. */
export function halfOf(head: object): Buffer {
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  return Buffer.concat([length, json])
}

/** The messages of a queue, taken out of it; and none comes after them. */
export async function exactly(queue: string, count: number): Promise<GetMessage[]> {
  const messages = count === 0 ? [] : await taken(queue, count)
  const { messages: left } = await counts(queue)
  if (left > 0) throw new Error(`${left} more than ${count} messages in ${queue}`)
  return messages
}

/** All half messages of a sender have come to their end. */
export async function nothingWaits(name: string, parked = 0): Promise<void> {
  await eventually(
    async () => {
      const [half, check, last] = await Promise.all(['', '.check', '.parked'].map((s) => counts(`${name}.half${s}`)))
      const found = [half!.messages, check!.messages, last!.messages]
      if (found.join() !== `0,0,${parked}`) throw new Error(`waiting, in check, parked: ${found}`)
    },
    { what: `the end of all half messages of ${name}`, withinMs: 15_000 },
  )
}

async function deleteQueues(): Promise<void> {
  const model = await raw()
  for (const name of names)
    for (const suffix of ['', '.check', '.parked']) {
      const channel = await model.createChannel()
      channel.on('error', () => {})
      await channel.deleteQueue(`${name}.half${suffix}`).then(
        () => channel.close(),
        () => {},
      )
    }
  names.clear()
}

if (typeof after === 'function' && process.env['AMQP_URL']) after('delete the queues of senders', () => deleteQueues())

/** What the front door lends to a sender. */
export async function lentBroker() {
  const connection = (role: string) =>
    toClose(new Connection({ urls: [amqpUrl()], role, service: 'test', events: new Events(unique('lent')), ...TIMING }))
  const [consuming, publishing] = [connection('consume'), connection('publish')]
  await Promise.all([consuming.ready(10_000), publishing.ready(10_000)])
  const publisher = new Publisher(publishing, { windowMessages: 100, windowBytes: 1 << 24, maxWaiting: 100 })
  toClose({ close: () => publisher.close(1_000) })
  return { connection: consuming, declarer: new Declarer(consuming), publisher, service: 'test', drainMs: 2_000 }
}

const TIMING = {
  heartbeatSeconds: 10,
  handshakeTimeoutMs: 10_000,
  rpcTimeoutMs: 10_000,
  reconnectBaseMs: 50,
  reconnectCapMs: 1_000,
}

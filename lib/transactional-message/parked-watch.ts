/**
 * Takes parked half messages up again when their transaction has been decided after all: a commit that came after a day, from a
 * process that no longer had the messages, must not wait for an operator.
 *
 *     every `everyMs` (with jitter): anything parked? ──▶ read, look all up ──▶ decided ones go back to the check queue
 *
 * Promises: what is undecided stays as it is; a copy is confirmed before the original is acked. It is one inspector like any
 * other: while an operator looks, it waits for its next turn. Does NOT promise speed.
 */
import type { Connection } from '../connection/connection.ts'
import type { Taken } from '../dead-letter/leg.ts'
import { Reader } from '../dead-letter/reader.ts'
import { pause } from '../deadline.ts'
import { HEADER, type RawDelivery } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Verdict } from './check-back.ts'
import { decodeHalf, halfProperties } from './envelope.ts'
import { checkQueueOf, parkedQueueOf } from './half-queues.ts'
import type { Ledger } from './ledger.ts'

/** What the watch works with. */
export interface ParkedWatchParts {
  readonly connection: Connection
  readonly publisher: Publisher
  readonly ledger: Ledger
  readonly everyMs: number
}

const PAGE = 100
const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const

/** The background turn of one sender's parked half messages. */
export class ParkedWatch {
  readonly #parts: ParkedWatchParts
  readonly #stop = new AbortController()
  #running: Promise<void> | undefined

  constructor(parts: ParkedWatchParts) {
    this.#parts = parts
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      await pause(this.#parts.everyMs * (0.75 + Math.random() / 2), signal, true)
      // The broker or the store cannot be asked, or somebody else looks: the next turn will do.
      if (!signal.aborted) await this.#turn().catch(() => {})
    }
  }

  async #turn(): Promise<void> {
    const { connection, ledger } = this.#parts
    const queue = parkedQueueOf(ledger.scope.name)
    if ((await readyIn(connection, queue)) === 0) return
    const reader = await Reader.open(connection, queue)
    try {
      for (let page = await reader.nextMany(PAGE); page.length > 0; page = await reader.nextMany(PAGE)) {
        if (this.#stop.signal.aborted) return
        await this.#takeUp(page)
      }
    } finally {
      await reader.close()
    }
  }

  async #takeUp(page: readonly Taken[]): Promise<void> {
    const known = page.flatMap((taken) => {
      const transactionId = idOf(taken.raw)
      return transactionId === undefined ? [] : [{ taken, transactionId }]
    })
    const views = await this.#parts.ledger.look(known.map(({ transactionId }) => transactionId))
    const { publisher, ledger } = this.#parts
    for (const [i, { taken }] of known.entries()) {
      if (views[i]?.decision === undefined) continue
      await publisher.publish(backToCheck(taken.raw, ledger.scope.name, undefined), PUBLISH)
      taken.ack()
    }
  }
}

/**
 * A parked half message on its way back, with an operator's verdict or none; what it holds as it was, byte by byte. Of its headers only
 * ours go: others were put there by somebody, may be such as cannot be sent, and would keep all that are parked behind them.
 */
export function backToCheck(raw: RawDelivery, name: string, verdict: Verdict | undefined): Encoded {
  const half = decodeHalf(raw)
  const { transactionId, halfId } = half
  const own = halfProperties(half)
  const properties = verdict === undefined ? own : { ...own, headers: { ...own.headers, [HEADER.verdict]: verdict } }
  return {
    messageId: halfId,
    transactionId,
    exchange: '',
    routingKey: checkQueueOf(name),
    content: raw.content,
    properties,
  }
}

function idOf(raw: RawDelivery): string | undefined {
  try {
    return decodeHalf(raw).transactionId
  } catch {
    return undefined
  }
}

async function readyIn(connection: Connection, queue: string): Promise<number> {
  const look = await connection.withChannel((channel) =>
    connection.rpc(`look at queue "${queue}"`, () => channel.checkQueue(queue)),
  )
  return look.messageCount
}

// Consumers that break what Surehop promises, so that the lab can be seen to notice. For its own tests.

import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectRaw } from 'amqplib'
import { connect } from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { type Body, consume } from './consumer.ts'
import type { Job, Work } from './job.ts'

const LONG_MS = 300

/** What is acked is gone: a process that dies takes along what it had only begun. */
export async function ackFirst({ amqp, names }: Job, ledger: LedgerWriter): Promise<Work> {
  const connection = await connectRaw(amqp[0]!)
  const channel = await connection.createChannel()
  await channel.prefetch(50)
  await channel.consume(names.direct, async (raw) => {
    if (!raw) return
    channel.ack(raw)
    const [id, token] = [String(raw.properties.messageId), monotonicNs()]
    ledger.note({ is: 'started', at: token, id, token, attempt: 1, generation: 0 })
    await pause(LONG_MS)
    ledger.write({ is: 'effect', at: monotonicNs(), id, token })
  })
  return { close: () => connection.close() }
}

/** Whatever is delivered again is done again. */
export async function forget({ amqp, names, concurrency }: Job, ledger: LedgerWriter): Promise<Work> {
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  await surehop.consume<Body>(names.direct, { concurrency }, async ({ messageId: id }, { attempt, generation }) => {
    const token = monotonicNs()
    ledger.note({ is: 'started', at: token, id, token, attempt, generation })
    ledger.write({ is: 'effect', at: monotonicNs(), id, token })
    await pause(LONG_MS)
  })
  return { close: () => surehop.close() }
}

/** Works well, and fails when it is closed. */
export async function endBadly(job: Job, ledger: LedgerWriter): Promise<Work> {
  const { close } = await consume({ ...job, sabotage: undefined }, ledger)
  return {
    async close() {
      await close()
      throw new Error('it ended badly')
    },
  }
}

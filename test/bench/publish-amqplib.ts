/** Publishing with amqplib by hand, as cheaply as it allows: callbacks, no promise per message. */

import { randomUUID } from 'node:crypto'
import { type ConfirmChannel, connect, type Options } from 'amqplib'
import type { Job, Measured } from './job.ts'
import { bodyOf, pumped } from './pump.ts'

/** A confirm callback per message: what most services have. A message that no queue takes is lost without a word. */
export function rawPublish(job: Job): Promise<Measured> {
  return withConfirmChannel(job, async (channel) => {
    const content = bodyOf(job)
    return pumped(job, (confirmed) => {
      channel.publish('', job.queue, content, { persistent: true, messageId: randomUUID() }, confirmed)
    })
  })
}

/** The same, and what a careful service adds by hand: mandatory with a return listener, and the properties that Surehop sets. */
export function rawCarefulPublish(job: Job): Promise<Measured> {
  return withConfirmChannel(job, async (channel) => {
    const content = bodyOf(job)
    const open = new Set<string>()
    channel.on('return', ({ properties }) => void open.delete(String(properties.messageId)))
    return pumped(job, (confirmed) => {
      const messageId = randomUUID()
      open.add(messageId)
      channel.publish('', job.queue, content, carefulOptions(messageId), (error: Error | null) =>
        confirmed(error ?? (open.delete(messageId) ? null : new Error('returned'))),
      )
    })
  })
}

/** What Surehop sets. */
export function carefulOptions(messageId: string): Options.Publish {
  return {
    persistent: true,
    mandatory: true,
    messageId,
    timestamp: Math.floor(Date.now() / 1_000),
    appId: 'bench',
    contentType: 'application/octet-stream',
    headers: { transaction_id: messageId },
  }
}

async function withConfirmChannel(job: Job, run: (channel: ConfirmChannel) => Promise<Measured>): Promise<Measured> {
  const connection = await connect(job.amqpUrl, { noDelay: true })
  try {
    return await run(await connection.createConfirmChannel())
  } finally {
    await connection.close()
  }
}

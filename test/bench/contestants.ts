/** Who runs against whom. A contest's first contestant is what the others are compared with. */

import * as consume from './consume.ts'
import type { Job, Measured } from './job.ts'
import * as publish from './publish.ts'

export interface Contest {
  readonly title: string
  /** The queue must hold the messages before a run. */
  readonly full: boolean
  readonly contestants: Readonly<Record<string, (job: Job) => Promise<Measured>>>
}

export const contests: Readonly<Record<string, Contest>> = {
  publish: {
    title: 'Publish, confirmed, to a quorum queue',
    full: false,
    contestants: {
      'amqplib, confirm callback': publish.rawPublish,
      'amqplib, the same + mandatory, properties': publish.rawCarefulPublish,
      'Surehop send()': publish.surehopSend,
      'Surehop publishMany()': publish.surehopPublishMany,
    },
  },
  consume: {
    title: 'Consume from a quorum queue, handler does nothing, no deduplication',
    full: true,
    contestants: {
      'amqplib, handler, ack': consume.rawConsume,
      'Surehop, no store': consume.surehopConsume,
    },
  },
  deduplicate: {
    title: 'Consume from a quorum queue with deduplication in Redis',
    full: true,
    contestants: {
      'amqplib + ioredis, SET NX, handler, SET, ack': consume.rawDeduplicated,
      'the same, auto-pipelined': consume.rawPipelined,
      'Surehop, Redis store': consume.surehopDeduplicated,
    },
  },
}

/** The child's side. */
export function contestantOf(name: string): (job: Job) => Promise<Measured> {
  for (const { contestants } of Object.values(contests)) {
    const found = contestants[name]
    if (found) return found
  }
  throw new Error(`no contestant "${name}"`)
}

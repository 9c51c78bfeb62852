/** Who runs against whom. A contest's first contestant is what the others are compared with. */

import * as consume from './consume.ts'
import { type Contest, type Contestant, type Run, rates } from './contest.ts'
import { outboxContests } from './outbox-contestants.ts'
import * as publish from './publish.ts'

const columns = rates('message')

export const contests: Readonly<Record<string, Contest>> = {
  publish: {
    title: 'Publish, confirmed, to a quorum queue',
    columns,
    contestants: {
      'amqplib, confirm callback': publish.rawPublish,
      'amqplib, the same + mandatory, properties': publish.rawCarefulPublish,
      'Surehop send()': publish.surehopSend,
      'Surehop publishMany()': publish.surehopPublishMany,
    },
  },
  consume: {
    title: 'Consume from a quorum queue, handler does nothing, no deduplication',
    columns,
    full: true,
    contestants: {
      'amqplib, handler, ack': consume.rawConsume,
      'Surehop, no store': consume.surehopConsume,
    },
  },
  deduplicate: {
    title: 'Consume from a quorum queue with deduplication in Redis',
    columns,
    full: true,
    contestants: {
      'amqplib + ioredis, SET NX, handler, SET, ack': consume.rawDeduplicated,
      'the same, auto-pipelined': consume.rawPipelined,
      'Surehop, Redis store': consume.surehopDeduplicated,
    },
  },
  ...outboxContests,
}

/**
 * The contests of that name, or of that group: `outbox` is all whose names begin with `outbox-`.
 * @throws Error when there are none
 */
export function contestsOf(name: string): Record<string, Contest> {
  const found = Object.entries(contests).filter(([it]) => it === name || it.startsWith(`${name}-`))
  if (found.length === 0)
    throw new Error(`unknown contest "${name}", expected one of ${Object.keys(contests).join(', ')}`)
  return Object.fromEntries(found)
}

/** What comes before the run, in the parent's process; nothing for most. */
export function preparationOf(contestant: Contestant): Run<void> {
  return typeof contestant === 'function' ? async () => {} : contestant.prepare
}

/** The child's side. */
export function runOf(contest: string, name: string): Run {
  const contestant = contests[contest]?.contestants[name]
  if (!contestant) throw new Error(`no contestant "${name}" in "${contest}"`)
  return typeof contestant === 'function' ? contestant : contestant.run
}

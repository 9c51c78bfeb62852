/** `surehop outbox status`: how each outbox stands, and who sends it. */
import type { Command } from 'commander'
import type { OutboxStatus } from '../../lib/index.ts'
import { type OutboxFlags, type OutboxSession, outboxSessionCommand } from '../outbox-session.ts'
import { EXIT } from '../session.ts'
import { type Column, type Output, table } from '../terminal.ts'
import { duration, plural, safe } from '../text.ts'

export function outboxStatusCommand(): Command {
  return outboxSessionCommand<OutboxFlags>('status', {
    description: 'how many messages wait, since when, and who sends them; exit code 1 where somebody should look',
    examples: ['surehop outbox status', 'surehop outbox status --outbox orders --json'],
    run: status,
  })
}

async function status({ output, desk }: OutboxSession, { json }: OutboxFlags): Promise<number> {
  const found = await desk.status()
  if (json) for (const one of found) await output.json(one)
  else if (found.length > 0) await output.line(table(found, columns(output), output.width, output.paint.bold))
  if (found.length === 0 && !json) output.note('No outbox here has rows or relays.')
  const common = new Set(found.flatMap(({ problem }) => problem ?? []))
  const troubles = [...found.flatMap(troublesOf), ...[...common].map(sentence)]
  if (!json) for (const trouble of troubles) output.note(`\n${trouble}`)
  return troubles.length === 0 ? EXIT.done : EXIT.partly
}

function sentence(problem: string): string {
  return safe(`${problem[0]!.toUpperCase()}${problem.slice(1)}.`)
}

function troublesOf({ outbox, ready, held, parked, relays, unownedShards }: OutboxStatus): string[] {
  const name = safe(outbox)
  const waiting = ready + held
  const told: string[] = []
  if (waiting > 0 && relays === 0)
    told.push(
      `No relay sends outbox ${name}, and ${plural(waiting, 'message')} ${waiting === 1 ? 'waits' : 'wait'}: start surehop.relay() in a service.`,
    )
  if (relays > 0 && unownedShards > 0)
    told.push(
      `${plural(unownedShards, 'shard')} of outbox ${name} belong to no relay just now. For more than a few seconds that is wrong.`,
    )
  if (parked > 0)
    told.push(`${plural(parked, 'message')} of outbox ${name} parked: surehop outbox list --outbox ${name}`)
  return told
}

function columns({ paint }: Output): Column<OutboxStatus>[] {
  const count = (value: number) => value.toLocaleString('en-US')
  return [
    { head: 'OUTBOX', of: ({ outbox }) => outbox, min: 8, keep: true },
    { head: 'READY', of: ({ ready }) => count(ready), right: true },
    { head: 'HELD', of: ({ held }) => count(held), right: true },
    { head: 'PARKED', of: ({ parked }) => count(parked), right: true },
    { head: 'OLDEST', of: ({ oldestMs }) => (oldestMs === undefined ? '' : duration(oldestMs / 1_000)), right: true },
    { head: 'RELAYS', of: ({ relays }) => String(relays), right: true },
    {
      head: 'UNOWNED SHARDS',
      of: ({ unownedShards }) => String(unownedShards),
      right: true,
      paint: paint.dim,
      spare: 1,
    },
  ]
}

/** Who runs against whom: all contests, and how to find a contestant. */

import { consumeContests } from './consume-contestants.ts'
import type { Contest, Contestant, Run } from './contest.ts'
import { endurance } from './endurance-contestants.ts'
import { outboxContests } from './outbox-contestants.ts'
import { publishContests } from './publish-contestants.ts'

export const contests: Readonly<Record<string, Contest>> = {
  ...publishContests,
  ...consumeContests,
  ...outboxContests,
  ...endurance,
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

/** Is this Redis set up so that it does not forget? Sentences for an operator; a setting that may not be read is one of them. */

import type { RedisLink } from './redis-link.ts'

const ADVICE =
  'A lost record means that a message may run twice. Set `maxmemory-policy noeviction` and `appendonly yes` (appendfsync everysec or always).'

export async function warningsOf(link: RedisLink): Promise<string[]> {
  const [infos, saves] = [await link.askMasters('INFO'), await link.askMasters('CONFIG', 'GET', 'save')]
  const warnings = infos.flatMap((info, i) => warningsOfNode(typeof info === 'string' ? info : undefined, saves[i]))
  return [...new Set(warnings)]
}

function warningsOfNode(info: string | undefined, save: unknown): string[] {
  if (info === undefined) return [`Could not check Redis' eviction and persistence: INFO is not allowed. ${ADVICE}`]
  return [evictionOf(field(info, 'maxmemory_policy')), persistenceOf(field(info, 'aof_enabled'), save)].flatMap(
    (w) => w ?? [],
  )
}

function evictionOf(policy: string | undefined): string | undefined {
  if (policy === 'noeviction') return undefined
  if (policy === undefined) return `Could not check Redis' maxmemory-policy. ${ADVICE}`
  return `Redis may evict records when memory is short: maxmemory-policy is ${policy}. ${ADVICE}`
}

function persistenceOf(aof: string | undefined, save: unknown): string | undefined {
  if (aof === '1') return undefined
  const rules = saveRules(save)
  if (rules === undefined)
    return `Redis has no append-only file, and whether it saves snapshots could not be checked. ${ADVICE}`
  return rules === '' ? `Redis keeps nothing on disk: a restart forgets every record. ${ADVICE}` : undefined
}

/** CONFIG GET answers `['save', '3600 1 300 100']`, or an object under RESP3. */
function saveRules(reply: unknown): string | undefined {
  const value = Array.isArray(reply) ? reply[1] : (reply as { save?: unknown } | undefined)?.save
  return typeof value === 'string' ? value : undefined
}

function field(info: string, name: string): string | undefined {
  return new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1]
}

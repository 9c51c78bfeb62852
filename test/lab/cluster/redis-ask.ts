// One question to one Redis or Sentinel, on a connection of its own.
//
// Promises: an answer or an error within a few seconds, also from a server that is down or frozen.

import { Redis } from 'ioredis'
import type { Server } from '../../support/server.ts'

const WITHIN_MS = 3_000

/** Asks, such as `ask(server, 'CLUSTER', 'INFO')`. */
export async function ask(server: Server, command: string, ...args: readonly (string | number)[]): Promise<unknown> {
  const client = new Redis(server.url, {
    lazyConnect: true,
    connectTimeout: WITHIN_MS,
    commandTimeout: WITHIN_MS,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
    // Else ioredis asks first whether a server is loading, which a Sentinel does not understand.
    enableReadyCheck: false,
  })
  client.on('error', () => {})
  try {
    await client.connect()
    return await client.call(command, ...args)
  } finally {
    client.disconnect()
  }
}

/** The value of `field` in an answer of `INFO` or `CLUSTER INFO`. */
export function fieldOf(info: unknown, field: string): string | undefined {
  return new RegExp(`^${field}:(.*?)\\r?$`, 'm').exec(String(info))?.[1]
}

/** A list of names and values in turn, as Sentinels answer. */
export function pairsOf(answer: unknown): ReadonlyMap<string, string> {
  const flat = (answer as readonly unknown[]).map(String)
  return new Map(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1] ?? ''] as const] : [])))
}

/** Thaws and starts each, whatever was done to it. */
export async function revive(servers: readonly Server[]): Promise<void> {
  await Promise.all(servers.map((server) => server.thaw().then(() => server.start())))
}

/** Starts them all at once; if one fails, the others are closed. */
export async function startAll(starts: readonly Promise<Server>[]): Promise<readonly Server[]> {
  const outcomes = await Promise.allSettled(starts)
  if (outcomes.some(({ status }) => status === 'rejected')) {
    await Promise.all(outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value.close() : undefined)))
  }
  return Promise.all(starts)
}

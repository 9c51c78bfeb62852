// Loopback ports for private services.
//
// Promises: the port was free a moment ago, and no client connection takes it while its service is down.
// Does not promise that it is still free: `firstThatStarts` tries again on a lost race.

import { randomInt } from 'node:crypto'
import { connect, createServer } from 'node:net'

// Below the ports that operating systems lend to outgoing connections (Linux from 32768, macOS from 49152). From among
// those, a client that tries to reach a killed broker again and again may be lent the broker's own port, and block it.
const LOWEST = 15_000
const HIGHEST = 32_000

/** A port of 127.0.0.1 that nothing listens on. */
export async function freePort(): Promise<number> {
  const port = randomInt(LOWEST, HIGHEST)
  return (await isFree(port)) ? port : freePort()
}

function isFree(port: number): Promise<boolean> {
  const server = createServer()
  return new Promise((resolve) => {
    server.once('error', () => resolve(false))
    server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve(true)))
  })
}

/** Thrown by a start that found its port taken. */
export class PortTakenError extends Error {
  override readonly name = 'PortTakenError'
}

/** Runs `start`, again with new ports if another process was faster, five times at most. */
export async function firstThatStarts<T>(start: () => Promise<T>, tries = 5): Promise<T> {
  return start().catch((error: unknown) => {
    if (error instanceof PortTakenError && tries > 1) return firstThatStarts(start, tries - 1)
    throw error
  })
}

/** Connects, says `hello`, and gives the first bytes that come back; fails if nothing does. */
export function converse(port: number, hello: string | Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: 2_000 }, () => socket.write(hello))
    const giveUp = (error?: Error) => {
      socket.destroy()
      reject(error ?? new Error(`no answer on port ${port}`))
    }
    socket
      .once('error', giveUp)
      .once('timeout', giveUp)
      .once('close', () => giveUp())
    socket.once('data', (bytes: Buffer) => {
      resolve(bytes)
      socket.destroy()
    })
  })
}

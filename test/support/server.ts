// What a test may do to a private server, and those verbs over one private process.

import type { PrivateProcess } from './private-process.ts'

/** What a test may do to a server. Calls fail with a clear error where `controllable` is false. */
export interface Server extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** False for a server that was named by an environment variable: it is used, never stopped. */
  readonly controllable: boolean
  /** Starts it again on the same port with the same data; nothing happens if it runs. */
  start(): Promise<void>
  /** Ends it in good order and keeps its data. */
  stop(): Promise<void>
  restart(): Promise<void>
  /** Ends it with SIGKILL and keeps its data. */
  kill9(): Promise<void>
  /** SIGSTOP: connections stay open, nothing is answered. */
  freeze(): Promise<void>
  /** SIGCONT. */
  thaw(): Promise<void>
  /** Ends it and removes its data. */
  close(): Promise<void>
}

/** Waits until it is ready; a process that does not get there is ended. */
export async function readyOrEnded(
  started: PrivateProcess,
  check: () => Promise<unknown>,
  withinMs: number,
): Promise<PrivateProcess> {
  await started.ready(check, withinMs).catch(async (error: unknown) => {
    await started.end('SIGKILL')
    throw error
  })
  return started
}

/** What {@link control} needs to know of a server. */
export interface Controlled {
  readonly url: string
  readonly port: number
  readonly first: PrivateProcess
  begin(): Promise<PrivateProcess>
  /** The signal that ends it in good order. Default SIGTERM. */
  readonly stopSignal?: NodeJS.Signals
  /** The signal that ends it before its data are removed. Default SIGKILL. */
  readonly closeSignal?: NodeJS.Signals
  /** Lets go of all that is not the server process. */
  remove(): Promise<void>
}

/** The verbs of {@link Server} over one private process. */
export function control(controlled: Controlled): Server {
  const { url, port, first, begin, remove, stopSignal = 'SIGTERM', closeSignal = 'SIGKILL' } = controlled
  let current = first
  let closed: Promise<void> | undefined
  const start = async () => {
    if (closed) throw new Error(`The private server ${url} is closed.`)
    if (!current.alive) current = await begin()
  }
  const close = async () => {
    await current.end(closeSignal)
    await remove()
  }
  const server: Server = {
    url,
    port,
    controllable: true,
    start,
    stop: () => current.end(stopSignal),
    kill9: () => current.end('SIGKILL'),
    freeze: async () => current.signal('SIGSTOP'),
    thaw: async () => current.signal('SIGCONT'),
    restart: () => server.stop().then(start),
    close: () => (closed ??= close()),
    [Symbol.asyncDispose]: () => server.close(),
  }
  return server
}

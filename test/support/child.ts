// A TypeScript file as a process of its own, for tests that kill one: messages over IPC, kill -9, its end awaited.
//
// Promises: a message sent before anybody waits for it is kept; a child that ends while it is waited for fails the wait
// with what it printed; no child outlives the process that started it.

import { type ChildProcess, fork } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { fileURLToPath } from 'node:url'
import { eventOf } from './eventually.ts'
import { guard } from './guard.ts'

/** What passes between parent and child: anything JSON. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined }

/** Options of {@link startChild}. */
export interface ChildOptions {
  readonly args?: readonly string[]
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>
}

/** How a child ended. */
export interface End {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** Starts `file` (a path or a file URL) with `node --import tsx`. Inside, talk with {@link tellParent} and {@link onParent}. */
export function startChild(file: string | URL, options: ChildOptions = {}): Child {
  const path = file instanceof URL ? fileURLToPath(file) : file
  const env = { ...process.env, ...options.env }
  const stdio = ['ignore', 'pipe', 'pipe', 'ipc'] as const
  return new Child(fork(path, [...(options.args ?? [])], { execArgv: ['--import', 'tsx'], env, stdio: [...stdio] }))
}

/** In the child: sends a message to the test. */
export function tellParent(message: Json): void {
  process.send?.(message)
}

/** In the child: takes the messages of the test, until the test disconnects or ends. */
export function onParent(listener: (message: Json) => void): void {
  process.on('message', listener as (message: unknown) => void)
}

/** A running child. */
export class Child {
  /** Settles when the process is gone and its output is complete. */
  readonly ended: Promise<End>
  readonly #process: ChildProcess
  readonly #events = new EventEmitter()
  readonly #unread: Json[] = []
  #output = ''
  #end: End | undefined

  constructor(child: ChildProcess) {
    this.#process = child
    const release = child.pid === undefined ? () => {} : guard({ pid: child.pid })
    child.on('message', (message) => this.#take(message as Json))
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#output += text))
    }
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => resolve({ code, signal }))
    })
    this.ended.then(
      (end) => {
        this.#end = end
        this.#events.emit('news')
      },
      () => undefined,
    )
    this.ended.then(release, release)
  }

  get pid(): number {
    return this.#process.pid as number
  }

  /** What it printed so far. */
  get output(): string {
    return this.#output
  }

  /** Sends a message. */
  send(message: Json): void {
    this.#process.send(message as object)
  }

  /** The first message, of those not yet given, that passes `where`; waits for it 10,000 ms by default. */
  async next<T extends Json = Json>(options: { where?: (message: T) => boolean; withinMs?: number } = {}): Promise<T> {
    const { where = () => true, withinMs = 10_000 } = options
    const deadline = Date.now() + withinMs
    for (;;) {
      const at = this.#unread.findIndex((message) => where(message as T))
      if (at >= 0) return this.#unread.splice(at, 1)[0] as T
      if (this.#end) throw this.#early(this.#end)
      await eventOf(this.#events, 'news', { withinMs: Math.max(1, deadline - Date.now()) })
    }
  }

  /** SIGKILL, and waits for the end; harmless if it has ended. */
  kill9(): Promise<End> {
    return this.kill('SIGKILL')
  }

  /** Sends a signal, and waits for the end. */
  kill(signal: NodeJS.Signals = 'SIGTERM'): Promise<End> {
    this.#process.kill(signal)
    return this.ended
  }

  close(): Promise<End> {
    return this.kill9()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #take(message: Json): void {
    this.#unread.push(message)
    this.#events.emit('news')
  }

  #early({ code, signal }: End): Error {
    return new Error(`the child process ended (${signal ?? code}) before it said that. It printed:\n${this.#output}`)
  }
}

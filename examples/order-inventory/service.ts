/**
 * What the three services have in common: a process of its own with its own folder, one connection, and a parent that may ask it for
 * something. Does not outlive its parent.
 */
import { join } from 'node:path'
import { type ConsumeOptions, connect, exponential, type Surehop } from '../../lib/index.ts'
import { Diary } from './diary.ts'
import { type Names, namesOf } from './order.ts'

/** What a parent can ask; answers are anything JSON. `close` is asked last, when nothing runs any more. */
export type Tasks = Readonly<Record<string, (argument: never) => unknown>> & { readonly close: () => Promise<unknown> }

/** What a service is given to work with. */
export interface Shop {
  readonly surehop: Surehop
  /** Name of this run of the demo. */
  readonly run: string
  readonly names: Names
  /** The service's own folder. */
  readonly folder: string
  /** Its own settings. */
  readonly settings: readonly string[]
  /** Options that all consumers of the demo share. */
  readonly usual: Pick<ConsumeOptions, 'concurrency' | 'leaseMs' | 'maxStarts' | 'retry' | 'middleware'>
}

/** The relay of a killed process is replaced as soon as its messages. The default of 10 s suits production. */
export const RELAY_LEASE_MS = 2_000

/** Opens a service as `node service.ts RUN FOLDER [setting...]`, and tells the parent when it is ready. */
export async function runService(service: string, open: (shop: Shop) => Promise<Tasks>): Promise<void> {
  const [run = '', folder = '', ...settings] = process.argv.slice(2)
  const surehop = await connect({ amqp: needed('AMQP_URL'), service })
  const diary = new Diary(join(folder, 'diary.ndjson'))
  const usual = {
    concurrency: 8,
    // Short, so that the messages of a killed process move on within two seconds. The default of 15 s suits production.
    leaseMs: 2_000,
    maxStarts: 6,
    retry: { attempts: 10, backoff: exponential({ baseMs: 300, capMs: 2_000 }), retryable: isCurable },
    middleware: [diary.middleware],
  }
  const tasks = await open({ surehop, run, names: namesOf(run), folder, settings, usual })
  answer({ ...tasks, close: () => surehop.close().then(tasks.close) })
  process.send?.({ ready: true })
}

/** No repeat will cure such an error: the message goes to the dead letters at once. */
export class Incurable extends Error {
  constructor(message: string) {
    super(message)
    this.name = new.target.name
  }
}

function isCurable(error: unknown): boolean {
  return !(error instanceof Incurable)
}

interface Ask {
  readonly ask: number
  readonly task: string
  readonly argument: unknown
}

function answer(tasks: Tasks): void {
  process.on('disconnect', () => process.exit(1))
  // Ctrl-C reaches the whole group of processes; the parent says what happens then.
  process.on('SIGINT', () => {})
  process.on('message', async ({ ask, task, argument }: Ask) => {
    const value = await tasks[task]!(argument as never)
    process.send!({ answer: ask, value }, () => {
      if (task === 'close') process.exit(0)
    })
  })
}

/** A variable of the environment. */
export function needed(variable: string): string {
  const value = process.env[variable]
  if (!value) throw new Error(`${variable} is not set`)
  return value
}

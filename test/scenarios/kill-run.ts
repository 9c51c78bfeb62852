// The scenario "a consumer is killed again and again": messages flow, each published twice, while processes die by kill -9 at
// random moments. Afterwards every effect is counted, and each repeated one must be explained by a death.

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectRaw } from 'amqplib'
import { v7 } from 'uuid'
import { connect, deadQueueOf } from '../../lib/index.ts'
import { type Child, startChild } from '../support/child.ts'
import { eventually } from '../support/eventually.ts'
import { unique, uniqueQueue } from '../support/unique.ts'
import type { EffectSettings } from './fixtures/effects.ts'

/** How large. */
export interface KillOptions {
  readonly messages: number
  readonly kills: number
  readonly processes: number
  readonly leaseMs: number
  /** Longest life of a process after it is ready, ms. */
  readonly longestLifeMs: number
  readonly withinMs: number
}

/** What came of it. */
export interface KillReport {
  readonly messages: number
  readonly kills: number
  readonly seconds: number
  /** Ids without any effect. */
  readonly unhandled: number
  /** Effects beyond the first of their id. */
  readonly repeated: number
  /** Repeated effects whose earlier run did not die with its process between effect and record. Must be none. */
  readonly unexplained: readonly string[]
  readonly runs: number
  /** Messages left in the work queue, its dead letters, and the delay. */
  readonly left: number
}

interface Trace {
  readonly process: number
  readonly token: number
  readonly last: boolean
}

/** Handlers of one process. */
const CONCURRENCY = 10
/** Those that run, and as many that have ended and wait for their record: no more effects than that are unrecorded in a death. */
const UNRECORDED = 2 * CONCURRENCY
const FIXTURE = new URL('./fixtures/effects.ts', import.meta.url)

/** Plays it against the services of AMQP_URL and REDIS_URL. */
export async function killRun(options: KillOptions, tell: (line: string) => void = () => {}): Promise<KillReport> {
  const [queue, prefix] = [uniqueQueue('kills'), unique('kills')]
  const folder = await mkdtemp(join(tmpdir(), 'surehop-kills-'))
  const began = performance.now()
  try {
    const ids = Array.from({ length: options.messages }, (_, n) => `${v7()}-${n}`)
    const pool = new Pool(options, { queue, prefix, folder })
    await pool.start()
    const flow = publishTwice(queue, ids)
    await pool.killAllTheWhile(tell)
    await flow
    tell(`${pool.killed} processes killed after ${seconds(began)} s; waiting for the end`)
    await eventually(() => everythingIsHandled(folder, ids), {
      withinMs: options.withinMs,
      what: 'an effect of every message',
    })
    const left = await eventually(() => leftIn(queue), { withinMs: 60_000, what: 'the end of the queue' }).catch(() =>
      leftNow(queue),
    )
    const survivors = await pool.close()
    return {
      ...(await explain(folder, ids, survivors)),
      messages: ids.length,
      kills: pool.killed,
      seconds: seconds(began),
      left,
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Processes that are replaced as they die. */
class Pool {
  readonly #options: KillOptions
  readonly #place: { readonly queue: string; readonly prefix: string; readonly folder: string }
  readonly #living = new Map<number, Child>()
  #started = 0
  killed = 0

  constructor(options: KillOptions, place: { queue: string; prefix: string; folder: string }) {
    this.#options = options
    this.#place = place
  }

  async start(): Promise<void> {
    await Promise.all(Array.from({ length: this.#options.processes }, () => this.#spawn()))
  }

  /** As many lanes as processes: in each, one dies and the next is born, until enough have died. */
  async killAllTheWhile(tell: (line: string) => void): Promise<void> {
    const lanes = [...this.#living.keys()]
    await Promise.all(lanes.map((first) => this.#lane(first, tell)))
  }

  async #lane(first: number, tell: (line: string) => void): Promise<void> {
    for (let number = first; this.killed < this.#options.kills; ) {
      await pause(Math.random() * this.#options.longestLifeMs)
      if (this.killed >= this.#options.kills) return
      if (++this.killed % 25 === 0) tell(`${this.killed} killed`)
      const child = this.#living.get(number)!
      this.#living.delete(number)
      await child.kill9()
      number = await this.#spawn()
    }
  }

  async #spawn(): Promise<number> {
    const number = this.#started++
    const { folder, queue, prefix } = this.#place
    const { AMQP_URL: amqp = '', REDIS_URL: redis = '' } = process.env
    const file = join(folder, `${number}`)
    const settings: EffectSettings = {
      queue,
      prefix,
      leaseMs: this.#options.leaseMs,
      concurrency: CONCURRENCY,
      amqp,
      redis,
      file,
    }
    const child = startChild(FIXTURE, { args: [JSON.stringify(settings)] })
    this.#living.set(number, child)
    await child.next({ withinMs: 60_000 })
    return number
  }

  /** Closes the living in good order. @returns their numbers */
  async close(): Promise<Set<number>> {
    const survivors = new Set(this.#living.keys())
    await Promise.all(
      [...this.#living.values()].map((child) => {
        child.send('close')
        return child.ended
      }),
    )
    return survivors
  }
}

async function publishTwice(queue: string, ids: readonly string[]): Promise<void> {
  await using surehop = await connect({ amqp: process.env['AMQP_URL']!, service: 'kills' })
  const producer = surehop.producer()
  for (let from = 0; from < ids.length; from += 500) {
    const part = ids.slice(from, from + 500)
    const messages = [...part, ...part].map((messageId) => ({ routingKey: queue, messageId, body: { from } }))
    const results = await producer.publishMany('', messages)
    const failed = results.find(({ outcome }) => outcome !== 'confirmed')
    if (failed) throw new Error(`a publish was not confirmed: ${failed.outcome}`)
  }
}

async function linesOf(folder: string): Promise<{ process: number; what: string; id: string; token: number }[]> {
  const lines = []
  for (const file of await readdir(folder)) {
    for (const line of (await readFile(join(folder, file), 'utf8')).split('\n')) {
      const [what = '', id, token] = line.split(' ')
      if (id !== undefined) lines.push({ process: Number(file), what, id, token: Number(token) })
    }
  }
  return lines
}

async function everythingIsHandled(folder: string, ids: readonly string[]): Promise<void> {
  const done = new Set((await linesOf(folder)).filter(({ what }) => what === 'effect').map(({ id }) => id))
  if (done.size < ids.length) throw new Error(`${done.size} of ${ids.length}`)
}

async function leftIn(queue: string): Promise<number> {
  const left = await leftNow(queue)
  if (left > 0) throw new Error(`${left} messages are left`)
  return left
}

/** Ready ones; what is unacked counts as soon as its consumer has closed. */
async function leftNow(queue: string): Promise<number> {
  const connection = await connectRaw(process.env['AMQP_URL']!)
  try {
    const channel = await connection.createChannel()
    const counts = await Promise.all([queue, deadQueueOf(queue)].map((name) => channel.checkQueue(name)))
    return counts.reduce((sum, { messageCount }) => sum + messageCount, 0)
  } finally {
    await connection.close()
  }
}

/** A repeated effect is explained where each earlier one was made by a process that died, among the last it made. */
async function explain(folder: string, ids: readonly string[], survivors: ReadonlySet<number>) {
  const lines = await linesOf(folder)
  const effects = new Map<string, Trace[]>(ids.map((id) => [id, []]))
  const effectsOf = new Map<number, string[]>()
  for (const { process, what, id } of lines)
    if (what === 'effect') effectsOf.set(process, [...(effectsOf.get(process) ?? []), id])
  const lastOf = new Map([...effectsOf].map(([process, done]) => [process, new Set(done.slice(-UNRECORDED))]))
  for (const { process, what, id, token } of lines)
    if (what === 'effect') effects.get(id)!.push({ process, token, last: lastOf.get(process)!.has(id) })
  const unexplained: string[] = []
  let repeated = 0
  for (const [id, traces] of effects) {
    const inOrder = traces.sort((a, b) => a.token - b.token)
    repeated += Math.max(0, inOrder.length - 1)
    for (const { process, last, token } of inOrder.slice(0, -1))
      if (survivors.has(process) || !last) unexplained.push(`${id}: process ${process}, token ${token}`)
  }
  const unhandled = [...effects.values()].filter((traces) => traces.length === 0).length
  return { unhandled, repeated, unexplained, runs: lines.filter(({ what }) => what === 'start').length }
}

function seconds(began: number): number {
  return Math.round((performance.now() - began) / 100) / 10
}

/** `npm run scenario:kills`: the full size, told as it goes. */
async function main(): Promise<void> {
  const full = { messages: 20_000, kills: 100, processes: 3, leaseMs: 1_000, longestLifeMs: 1_500, withinMs: 600_000 }
  const report = await killRun(full, (line) => console.error(line))
  console.log(JSON.stringify(report, undefined, 2))
  const sound = report.unhandled === 0 && report.left === 0 && report.unexplained.length === 0
  process.exitCode = sound ? 0 : 1
}

if (process.argv[1] === import.meta.filename) await main()

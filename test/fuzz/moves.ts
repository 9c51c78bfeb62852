// What an operator does with the letters a run of the fuzzer left behind: restore, export and import, edit, replay.
//
// Promises: every letter comes through each of them as it was but for what was asked, and none is lost; a letter that nobody can
// send stays where it is, with an error that says why, and holds none of the others up.

import { Readable } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import type { DeadLetters } from '../../lib/index.ts'
import { eventually } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'
import { markerIn, UNSENDABLE } from './letters.ts'
import type { World } from './world.ts'

/** Letters of each queue. */
const LETTERS = 60
const EDITED = 3
const SETTLED_WITHIN_MS = 60_000

/** A letter as its line of JSON tells it. */
interface Line {
  readonly id: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly body?: unknown
  readonly bodyBase64?: string
}

type Lines = ReadonlyMap<string, Line>

/** Moves letters of every queue about. @returns what was wrong, and how many letters there were */
export async function moves(world: World, limit = LETTERS): Promise<{ wrong: string[]; letters: number }> {
  const wrong: string[] = []
  world.forget()
  const counts = await Promise.all(world.queues.map((queue) => new Tour(world, queue, wrong).run(limit)))
  return { wrong, letters: counts.reduce((sum, count) => sum + count, 0) }
}

class Tour {
  readonly #world: World
  readonly #queue: string
  readonly #letters: DeadLetters
  readonly #wrong: string[]

  constructor(world: World, queue: string, wrong: string[]) {
    this.#world = world
    this.#queue = queue
    this.#letters = world.surehop.deadLetters(queue)
    this.#wrong = wrong
  }

  async run(limit: number): Promise<number> {
    const archived = await linesOf(this.#letters.exportTo({ limit }, { archive: true }))
    await this.#restore(archived, limit)
    await this.#import(archived)
    await this.#edit(archived)
    await this.#replay()
    const { stopped } = await this.#letters.discard()
    if (stopped !== 'done') this.#wrong.push(`discarding stopped: ${stopped}`)
    return archived.size
  }

  async #restore(archived: Lines, limit: number): Promise<void> {
    const { stopped, failed, error } = await this.#letters.restore({ limit })
    if (stopped !== 'done' || failed > 0) this.#wrong.push(`restoring ${stopped}, ${failed} failed: ${error?.message}`)
    this.#same('restored', archived, await linesOf(this.#letters.exportTo()))
  }

  /** Into the dead letters of another queue. */
  async #import(archived: Lines): Promise<void> {
    const other = this.#world.surehop.deadLetters(uniqueQueue('fuzz-import'))
    const lines = [...archived.values()].map((line) => `${JSON.stringify(line)}\n`)
    for (const line of lines)
      await other.importFrom(Readable.from([line])).catch((error: Error) => {
        this.#wrong.push(`an exported line is not imported: ${error.message}: ${line.slice(0, 300)}`)
      })
    this.#same('imported', archived, await linesOf(other.exportTo()))
  }

  async #edit(archived: Lines): Promise<void> {
    const own = [...archived].filter(([marker, { id }]) => id === `id-${marker}`).slice(0, EDITED)
    for (const [marker, before] of own) {
      const body = Buffer.from([0xff, 0, 0x1b, ...Buffer.from(marker)])
      const { generation } = await this.#letters.edit(before.id, { body })
      const after = (await linesOf(this.#letters.exportTo({ ids: [before.id] }))).get(marker)
      const edited = { 'surehop-generation': generation, 'surehop-edited-from': `${before.id}#${generation - 1}` }
      const { body: _, ...rest } = before
      const headers = { ...before.headers, ...edited }
      const wanted = { ...rest, headers, bodyBase64: body.toString('base64') }
      if (!isDeepStrictEqual(after, wanted)) this.#wrong.push(differing('edited', wanted, after))
    }
  }

  /** With the consumer that gave up on them: each is handled now, or a letter again. */
  async #replay(): Promise<void> {
    const before = await linesOf(this.#letters.exportTo())
    const { stopped, error } = await this.#letters.replay(
      {},
      {
        watch: false,
        perSecond: 1_000,
        onOutcome: (outcome) => {
          if (outcome.outcome === 'failed' && !UNSENDABLE.test(outcome.error.message))
            this.#wrong.push(`a letter is not replayed: ${outcome.error.message}`)
        },
      },
    )
    if (stopped !== 'done') this.#wrong.push(`replaying stopped: ${stopped} ${error?.message}`)
    const missing = async () => {
      const after = await linesOf(this.#letters.exportTo())
      return [...before].filter(
        ([marker, { id }]) => id === `id-${marker}` && !after.has(marker) && !this.#world.handled.has(marker),
      )
    }
    await eventually(async () => (await missing()).length === 0, { withinMs: SETTLED_WITHIN_MS }).catch(async () => {
      for (const [, line] of await missing())
        this.#wrong.push(`lost in a replay: ${JSON.stringify(line).slice(0, 300)}`)
    })
  }

  #same(what: string, wanted: Lines, got: Lines): void {
    for (const [marker, line] of wanted)
      if (!isDeepStrictEqual(got.get(marker), line))
        this.#wrong.push(`${this.#queue}: ${differing(what, line, got.get(marker))}`)
  }
}

async function linesOf(lines: AsyncIterable<string>): Promise<Map<string, Line>> {
  const found = new Map<string, Line>()
  for await (const line of lines) found.set(markerIn(line) ?? line, lineOf(line))
  return found
}

/** What stands for an id in a letter that has none is made of all that is stored of it, and changes with it. */
function lineOf(text: string): Line {
  const line = JSON.parse(text) as Line
  return line.id.startsWith('~') ? { ...line, id: '~' } : line
}

/** The first part that differs. */
function differing(what: string, wanted: unknown, got: unknown, path = ''): string {
  if (!isTable(wanted) || !isTable(got))
    return `${what}, and ${path || 'it'} is ${String(JSON.stringify(got)).slice(0, 200)} instead of ${String(JSON.stringify(wanted)).slice(0, 200)}`
  const name = [...new Set([...Object.keys(wanted), ...Object.keys(got)])].find(
    (key) => !isDeepStrictEqual(wanted[key], got[key]),
  )!
  return differing(what, wanted[name], got[name], `${path}.${name}`)
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}

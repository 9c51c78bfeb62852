// Looks at dead letters, and sends those again whose messages can be handled then: round after round, whatever happens to it.
//
// Two queues: the letters of the direct path, which come and go; and some that nobody adds to or takes from, so that every look must
// find the same. What it saw and did goes to the ledger as it is known; see `../reconcile/letters.ts`.

import { setTimeout as pause } from 'node:timers/promises'
import { connect, type DeadLetters, type Letter, type ReplayOptions } from '../../../lib/index.ts'
import type { Look } from '../ledger/cast.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs } from '../ledger.ts'
import { type Random, randomFrom } from '../random.ts'
import { openStore } from './consumer.ts'
import { type Job, RETRY, REVIVED, type Work } from './job.ts'

const BETWEEN_MS = 100
const PER_SECOND = 60
const WATCH_MS = 2_000
/** A quarter fails again, by its fate: a small batch may have more of them, and then the replay stops. */
const MOST_FAILING = 0.5
/** Of three replays, two go in growing batches that are watched, and one at full speed. */
const UNWATCHED = 3
/** How long a look waits until letters that a dead inspector had in hand are back, ms. */
const BACK_WITHIN_MS = 3_000
/** The world is in trouble, or somebody else has the letters in hand: the next round may do better. */
const PASSING = new Set([
  'NOT_CONNECTED',
  'BROKER_TIMEOUT',
  'CHANNEL_LOST',
  'RESOURCE_BUSY',
  'RESOURCE_MISSING',
  'STORE_UNAVAILABLE',
  'CLOSED',
])

export async function operate(job: Job, ledger: LedgerWriter): Promise<Work> {
  const { amqp, names, seed, worker } = job
  const { store, close } = openStore(job.redis, names.prefix)
  const surehop = await connect({ amqp, service: names.service, reconnectCapMs: 1_000 })
  const letters = surehop.deadLetters(names.direct, { idempotency: store })
  const quiet = surehop.deadLetters(names.quiet)
  const operator = new Operator(letters, quiet, ledger, randomFrom(seed * 1_000 + worker))
  const running = operator.run()
  return {
    async close() {
      operator.stop()
      await running
      await surehop.close()
      await close()
    },
  }
}

class Operator {
  readonly #letters: DeadLetters
  readonly #quiet: DeadLetters
  readonly #ledger: LedgerWriter
  readonly #random: Random
  readonly #stopping = new AbortController()
  #spell = 0

  constructor(letters: DeadLetters, quiet: DeadLetters, ledger: LedgerWriter, random: Random) {
    this.#letters = letters
    this.#quiet = quiet
    this.#ledger = ledger
    this.#random = random
  }

  stop(): void {
    this.#stopping.abort()
  }

  async run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      for (const act of [() => this.#look('quiet'), () => this.#look('busy'), () => this.#replay()])
        if (!this.#stopping.signal.aborted) await act().catch((error: unknown) => this.#stumbled(error))
      await pause(BETWEEN_MS)
    }
  }

  /** Whatever is not the world's trouble ends this process, and is told. */
  #stumbled(error: unknown): void {
    this.#spell++
    if (!PASSING.has((error as { code?: string }).code ?? '')) throw error
  }

  async #look(queue: Look['queue']): Promise<void> {
    const of = queue === 'quiet' ? this.#quiet : this.#letters
    const before = await of.count()
    const first = await lettersOf(of)
    const between = await this.#backTo(first.length, of)
    const second = await lettersOf(of)
    const counts = [before, between, await this.#backTo(second.length, of)] as const
    const storyless = queue === 'busy' ? second.filter(lacksStory).map(nameOf) : []
    const seen = { counts, first: first.map(nameOf), second: second.map(nameOf), storyless }
    this.#ledger.write({ is: 'looked', at: monotonicNs(), queue, spell: this.#spell, ...seen })
  }

  /** Letters are given back at once, but a broker in trouble may count them as ready only later. */
  async #backTo(expected: number, of: DeadLetters): Promise<number> {
    const until = performance.now() + BACK_WITHIN_MS
    for (;;) {
      const count = await of.count()
      if (count >= expected || performance.now() > until) return count
      await pause(BETWEEN_MS)
    }
  }

  async #replay(): Promise<void> {
    const watch = this.#random.between(1, UNWATCHED) > 1
    const options: ReplayOptions = {
      watch,
      watchMs: WATCH_MS,
      maxFailing: MOST_FAILING,
      perSecond: PER_SECOND,
      signal: this.#stopping.signal,
      onOutcome: (outcome) => {
        if (outcome.outcome !== 'replayed') return
        const { letter, generation } = outcome
        this.#ledger.note({ is: 'replayed', at: monotonicNs(), id: letter.id, generation })
      },
    }
    this.#ledger.write({ is: 'replaying', at: monotonicNs(), stage: 'begun' })
    await this.#letters.replay({ where: `type=${REVIVED}` }, options)
    this.#ledger.write({ is: 'replaying', at: monotonicNs(), stage: 'ended' })
  }
}

async function lettersOf(of: DeadLetters): Promise<Letter[]> {
  const letters: Letter[] = []
  for await (const letter of of.list()) letters.push(letter)
  return letters
}

/** What a consumer gave up on says why, when, where, and after how many attempts; what the broker gave up on cannot. */
function lacksStory({ by, errorMessage, attempt, queue, firstFailedAt, deadAt }: Letter): boolean {
  if (by === 'broker') return false
  const tells = [errorMessage, queue, firstFailedAt, deadAt].every((part) => part !== undefined)
  return !tells || attempt !== RETRY.attempts
}

function nameOf({ id, generation }: Letter): string {
  return `${id}:${generation}`
}

// Charges a card whose books are a file, and tells of it by half messages, again and again; some charges fail.
//
// The file is the database: one line per write, appended in one go, and of two lines of one transaction the first counts. So that
// a check which finds nothing can see to it that there never will be anything: it writes its refusal first, and then reads.

import { appendFileSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import { AlreadyRolledBack, RedisDecisionStore, type Surehop } from '../../../lib/index.ts'
import { type Place, pauseAfter, type Work } from './place.ts'
import { type Steps, tapped } from './steps.ts'

const FIRST_CHECK_MS = 1_000
/** A Redis that a busy machine keeps waiting is not one that is gone: only kills end a process here. */
const PATIENCE_MS = 15_000

export async function charge(surehop: Surehop, place: Place, steps: Steps): Promise<Work> {
  const own = { prefix: place.schema, commandTimeoutMs: PATIENCE_MS }
  const store = new RedisDecisionStore({ url: place.redis }, own)
  const decisions = tapped(store, steps, (method) => (ASKED.has(method) ? `decisions.${method}` : undefined))
  const check = (id: string) => {
    steps.reach('check', 'before')
    const answer = enter(place.book, id, 'no') ? 'commit' : 'rollback'
    steps.reach('check', 'after')
    return answer
  }
  const options = { decisions, check, firstCheckMs: FIRST_CHECK_MS, checkCapMs: FIRST_CHECK_MS }
  const sender = await surehop.transactional(place.charges, options)
  let stopped = false
  const run = async () => {
    for (let n = 0; !stopped; n++) {
      await one(n)
      await pause(pauseAfter(n))
    }
  }
  const one = (n: number) => transaction(n, { place, steps, sender }).catch(expected)
  const running = run()
  const rest = () => {
    stopped = true
  }
  return {
    rest,
    async close() {
      rest()
      await running
      await sender.close()
      await store.close()
    },
  }
}

const ASKED = new Set(['decide', 'look', 'published', 'checked'])

type Sender = Awaited<ReturnType<Surehop['transactional']>>

/** The first and every third say three things, every fifth is declined; some by `run`, some step by step, and of some nobody says how they ended. */
async function transaction(
  n: number,
  { place, steps, sender }: { readonly place: Place; readonly steps: Steps; readonly sender: Sender },
): Promise<void> {
  const transactionId = `h${v7()}`
  const size = n % 3 === 0 ? 3 : 1
  const messages = Array.from({ length: size }, (_, i) => ({
    exchange: place.events,
    type: 'card.charged',
    messageId: `${transactionId}.${i}`,
    body: { charge: transactionId },
  }))
  const work = () => {
    steps.reach('work', 'before')
    const done = n % 5 !== 4 && enter(place.book, transactionId, `yes ${size}`)
    steps.reach('work', 'after')
    return done
  }
  if (n % 2 === 0) {
    await sender.run(messages, (_, context) => work() || context.rollback(), { transactionId })
    return
  }
  const prepared = await sender.prepare(messages, { transactionId })
  const done = work()
  if (n % 4 === 3) return
  if (done) await prepared.commit()
  else await prepared.rollback()
}

/** Writes, and says whether the transaction is done. */
function enter(book: string, id: string, word: string): boolean {
  appendFileSync(book, `${id} ${word}\n`)
  return firstWord(readFileSync(book, 'utf8'), id).startsWith('yes')
}

function firstWord(lines: string, id: string): string {
  const at = lines.indexOf(`${id} `)
  return lines.slice(at + id.length + 1, lines.indexOf('\n', at))
}

/** The check of a neighbour was quicker: nothing was written, nothing is sent. */
function expected(error: unknown): void {
  if (!(error instanceof AlreadyRolledBack)) throw error
}

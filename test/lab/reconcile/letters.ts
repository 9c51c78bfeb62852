// What an operator's work amounts to: letters that were looked at, and letters that were sent again. Pure; read from the ledger alone.
//
// What must be true, whatever died or was cut off meanwhile:
// - a message that died is handled in the end, or still a letter (`reconcile.ts` tells those as left); one that is neither is *lost*: its
//   letter was acked before its copy was stored. Of those that were accepted, `reconcile.ts` says so;
// - a generation that ended in a letter does not begin again, whatever copies of it there are: else it is *doubled*. That nothing
//   begins after it completed, in whatever generation, is judged in `runs.ts`, and that no attempt counts twice in `attempts.ts`;
// - a letter that stays behind (the operator died between publish and ack) is older than the generation that completed: else the
//   message has two ends, a *zombie*;
// - a look changes nothing: at letters that nobody adds to or takes from, it finds all of them, each once, and those that one
//   process saw without trouble between come in one order. What is missing is *lost*, what is there twice is *doubled*, what
//   has moved is *outOfOrder*. A look whose counts say that the broker still had letters of a dead inspector in hand is not judged by them.
//
// A copy that was sent twice, with the same generation, is no fault: of two copies one runs.

import type { Look } from '../ledger/cast.ts'
import type { Noted } from '../ledger.ts'
import { addAll, type Finding, type Judgement } from './judgement.ts'

/** The letters nobody adds to or takes from. */
export const QUIET: readonly string[] = Array.from({ length: 40 }, (_, i) => `quiet.${`${i}`.padStart(2, '0')}`)

interface Run {
  readonly by: number
  readonly token: number
  readonly started: number
  readonly attempt: number
  readonly generation: number
  end: string | undefined
  endSince: number
}

interface Patient {
  readonly id: string
  revived: boolean
  confirmed: boolean
  hasEffect: boolean
  isThere: boolean
  readonly runs: Run[]
  /** Generations that were sent; those that lie in the dead letters at the end. */
  readonly sent: number[]
  readonly letters: number[]
}

/** Goes through all entries once, in any order of the files. */
export function judgeLetters(entries: Iterable<Noted>): Judgement {
  return new Ward(entries).judgement()
}

class Ward {
  readonly #patients = new Map<string, Patient>()
  readonly #looks: (Look & { readonly by: number })[] = []
  readonly #ends: (Noted & { is: 'ended' })[] = []
  readonly #died = new Set<number>()
  readonly #replaying = new Map<number, number>()
  #replayed = 0

  constructor(entries: Iterable<Noted>) {
    for (const entry of entries) this.#take(entry)
    for (const { id, by, token, as, since } of this.#ends) {
      const run = this.#patients.get(id)?.runs.find((one) => one.by === by && one.token === token)
      if (run) Object.assign(run, { end: as, endSince: since })
    }
  }

  judgement(): Judgement {
    const findings: Finding[] = []
    for (const patient of this.#patients.values()) addAll(findings, judgePatient(patient))
    addAll(findings, judgeLooks(this.#looks))
    const cutShort = [...this.#replaying].filter(([by, open]) => open > 0 && this.#died.has(by)).length
    const looks = this.#looks.filter(isWhole).length
    return {
      findings,
      counts: { 'letters sent again': this.#replayed, 'replays cut short by a death': cutShort, looks },
      untried: [
        ...(this.#replayed === 0 ? ['no letter was sent again'] : []),
        ...(looks === 0 ? ['no look at the dead letters came to its end'] : []),
      ],
    }
  }

  #take(entry: Noted): void {
    switch (entry.is) {
      case 'offered':
        if (entry.fate === 'revived') this.#patient(entry.id).revived = true
        break
      case 'told':
        if (entry.outcome === 'confirmed') this.#patient(entry.id).confirmed = true
        break
      case 'started':
        this.#patient(entry.id).runs.push(runOf(entry))
        break
      case 'ended':
        this.#ends.push(entry)
        break
      case 'effect':
        this.#patient(entry.id).hasEffect = true
        break
      case 'left':
      case 'dead':
        this.#patient(entry.id).isThere = true
        break
      case 'letter':
        this.#patient(entry.id).letters.push(entry.generation)
        break
      case 'replayed':
        this.#replayed++
        this.#patient(entry.id).sent.push(entry.generation)
        break
      case 'replaying':
        this.#replaying.set(entry.by, (this.#replaying.get(entry.by) ?? 0) + (entry.stage === 'begun' ? 1 : -1))
        break
      case 'died':
        if (entry.how === 'killed') this.#died.add(entry.worker)
        break
      case 'looked':
        this.#looks.push(entry)
    }
  }

  #patient(id: string): Patient {
    const known = this.#patients.get(id)
    if (known) return known
    const lists = { runs: [], sent: [], letters: [] }
    const patient = { id, revived: false, confirmed: false, hasEffect: false, isThere: false, ...lists }
    this.#patients.set(id, patient)
    return patient
  }
}

function runOf({ by, token, at: started, attempt, generation }: Noted & { is: 'started' }): Run {
  return { by, token, started, attempt, generation, end: undefined, endSince: Number.POSITIVE_INFINITY }
}

function judgePatient(patient: Patient): Finding[] {
  if (!patient.revived) return []
  return [...lost(patient), ...repeats(patient), ...twoEnds(patient)]
}

/** Accepted ones are judged in `reconcile.ts`. */
function lost({ id, confirmed, sent, runs, hasEffect, isThere }: Patient): Finding[] {
  const died = sent.length > 0 || runs.some(({ end }) => end === 'dead')
  if (!died || confirmed || hasEffect || isThere) return []
  return [
    { kind: 'lost', id, why: `it died, was sent again ${sent.length} times, and is neither handled nor a letter` },
  ]
}

function repeats({ id, runs }: Patient): Finding[] {
  const over = runs.filter(({ end }) => end === 'dead')
  return runs.flatMap((run) => {
    const before = over.find((one) => one.endSince < run.started && run.generation <= one.generation)
    return before ? [finding('doubled', id, `${nameOf(run)} began after ${nameOf(before)} had ended in a letter`)] : []
  })
}

function twoEnds({ id, runs, letters }: Patient): Finding[] {
  const completed = runs.find(({ end }) => end === 'completed')
  if (!completed) return []
  const late = letters.find((generation) => generation >= completed.generation)
  if (late === undefined) return []
  const why = `generation ${completed.generation} completed, and a letter of generation ${late} is there`
  return [{ kind: 'zombies', id, why }]
}

function nameOf({ by, token, attempt, generation }: Run): string {
  return `run ${token} of process ${by} (attempt ${attempt} of generation ${generation})`
}

/** The last one, by the fleet itself and without the library, tells what is there, but nothing of an order. */
function judgeLooks(looks: readonly (Look & { readonly by: number })[]): Finding[] {
  const quiet = looks.filter(({ queue }) => queue === 'quiet')
  const storyless = looks.flatMap((look) =>
    look.storyless.map((id) => finding('lost', id, 'its letter lacks its story')),
  )
  return [...storyless, ...quiet.flatMap(changed), ...moved(quiet.filter((look) => isWhole(look) && look.by !== 0))]
}

/** The broker had all letters at hand, each time. */
function isWhole({ queue, counts }: Look): boolean {
  return queue === 'quiet' && counts.every((count) => count >= QUIET.length)
}

function changed(look: Look & { readonly by: number }): Finding[] {
  const lists = [look.first, look.second]
  const more = lists.flatMap((list) => {
    const strange = list.filter((name, i) => !EXPECTED.has(name) || list.indexOf(name) !== i)
    return strange.map((name) =>
      finding('doubled', name, `a look of process ${look.by} found it more than once, or changed`),
    )
  })
  const most = Math.max(...look.counts)
  if (most > QUIET.length)
    more.push(finding('doubled', 'the quiet letters', `a count found ${most} of ${QUIET.length}`))
  if (!isWhole(look) && look.by !== 0) return more
  const gone = [...EXPECTED].filter((name) => lists.some((list) => !list.includes(name)))
  return [...more, ...gone.map((name) => finding('lost', name, `a look of process ${look.by} did not find it`))]
}

const EXPECTED: ReadonlySet<string> = new Set(QUIET.map((id) => `${id}:0`))
const IN_ORDER = [...EXPECTED].join()

/** What one process saw without trouble between, in the order of time. */
function moved(looks: readonly (Look & { readonly by: number })[]): Finding[] {
  const spells = new Map<string, (readonly string[])[]>()
  for (const { by, spell, first, second } of looks.toSorted((a, b) => a.at - b.at)) {
    const name = `${by} ${spell}`
    // What is missing or strange is told by itself.
    const lists = [first, second].filter((list) => list.toSorted().join() === IN_ORDER)
    spells.set(name, [...(spells.get(name) ?? []), ...lists])
  }
  return [...spells].flatMap(([name, lists]) => {
    const other = lists.findIndex((list) => list.join() !== lists[0]!.join())
    return other < 0
      ? []
      : [finding('outOfOrder', 'the quiet letters', `process and spell ${name}: list ${other + 1} differs`)]
  })
}

function finding(kind: Finding['kind'], id: string, why: string): Finding {
  return { kind, id, why }
}

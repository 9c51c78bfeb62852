// What became of half messages. Pure; read from the ledger alone. Their work is a row, noted as `committed` where it was done.
//
// What must be true, whatever died between prepare, work and commit:
// - one whose work is done arrives, with one effect: judged in `reconcile.ts`, as for every accepted message;
// - one whose work is not done never arrives: else it is *phantom*;
// - one that the broker has stored comes to an end: its work is done, or somebody rolled it back (its sender, or the answer of a
//   check), or it still lies in its queues (which `reconcile.ts` then tells as left). Else it is *lost*: nobody was asked;
// - no decision contradicts the work: a commit that is refused although the work is done, a check that answers otherwise than the
//   work ended, are *zombies*.

import type { Checked, Said } from '../ledger/cast.ts'
import type { Noted } from '../ledger.ts'
import { addAll, type Finding, type Judgement } from './judgement.ts'

interface Half {
  readonly id: string
  offered: boolean
  /** Who has prepared it. */
  preparedBy: number | undefined
  done: boolean
  arrived: boolean
  isThere: boolean
  contradicted: boolean
  said: Said | undefined
  readonly answers: Set<Checked>
  /** Processes that were asked and have not answered. */
  readonly asked: Set<number>
}

/** Goes through all entries once, in any order of the files. */
export function judgeHalves(entries: Iterable<Noted>): Judgement {
  const halves = new Map<string, Half>()
  const killed = new Set<number>()
  for (const entry of entries) {
    if (entry.is === 'died' && entry.how === 'killed') killed.add(entry.worker)
    else if ('id' in entry) take(entry, halves)
  }
  const all = [...halves.values()].filter(({ offered }) => offered)
  const findings: Finding[] = []
  for (const half of all) addAll(findings, judge(half))
  return { findings, ...tried(all, killed) }
}

function take(entry: Noted & { readonly id: string }, halves: Map<string, Half>): void {
  const half = halves.get(entry.id) ?? unknown(entry.id)
  halves.set(entry.id, half)
  if (entry.is === 'offered') half.offered = entry.path === 'half'
  else if (entry.is === 'prepared') half.preparedBy = entry.by
  else if (entry.is === 'said') half.said = entry.what
  else if (entry.is === 'checking') half.asked.add(entry.by)
  else if (entry.is === 'checked') {
    half.answers.add(entry.answer)
    half.asked.delete(entry.by)
  } else if (entry.is === 'contradicted') half.contradicted = true
  else if (entry.is === 'committed') half.done = true
  else if (entry.is === 'left') half.isThere = true
  else if (entry.is === 'started' || entry.is === 'effect') half.arrived = true
}

function unknown(id: string): Half {
  const flags = { offered: false, done: false, arrived: false, isThere: false, contradicted: false }
  return { id, ...flags, preparedBy: undefined, said: undefined, answers: new Set(), asked: new Set() }
}

function judge({ id, preparedBy, done, arrived, isThere, contradicted, said, answers }: Half): Finding[] {
  const findings: Finding[] = []
  const find = (kind: Finding['kind'], why: string) => findings.push({ kind, id, why })
  if (arrived && !done) find('phantom', 'it arrived, and its work is not done')
  if (contradicted) find('zombies', 'its decision was refused by the opposite one')
  if (answers.has(done ? 'rollback' : 'commit'))
    find('zombies', `a check answered against its work, ${done ? '' : 'not '}done`)
  const ended = done || said === 'rollback' || answers.has('rollback')
  if (preparedBy !== undefined && !ended && !isThere) find('lost', 'stored, and nobody has decided it or was asked')
  return findings
}

function tried(all: readonly Half[], killed: ReadonlySet<number>): Pick<Judgement, 'counts' | 'untried'> {
  const count = (which: (half: Half) => boolean) => all.filter(which).length
  const counts = {
    'half messages': count(({ preparedBy }) => preparedBy !== undefined),
    'committed by check': count(({ said, answers, arrived }) => said !== 'commit' && answers.has('commit') && arrived),
    'rolled back by check': count(({ said, answers }) => said !== 'rollback' && answers.has('rollback')),
    'rolled back by their sender': count(({ said }) => said === 'rollback'),
    'checks cut short by a death': count(({ asked }) => [...asked].some((by) => killed.has(by))),
    'cut short by a death': count(({ preparedBy, said }) => said === undefined && killed.has(preparedBy ?? 0)),
  }
  const wanted = ['committed by check', 'rolled back by check'] as const
  return { counts, untried: wanted.filter((what) => counts[what] === 0).map((what) => `no half message was ${what}`) }
}

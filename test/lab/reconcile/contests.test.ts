import { expect } from 'chai'
import type { Entry, Noted } from '../ledger.ts'
import { reconcile } from '../reconcile.ts'

const MS = 1e6
type Line = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> & { readonly by: number } : never) : never

const RULES: Line = {
  ...{ is: 'rules', by: 0, leaseMs: 1, concurrency: 4, inOrder: [] as const, redelivered: 'front' },
  ...{ attempts: 4, delayMs: 0 },
}
const OFFERED: Line = { is: 'offered', by: 1, id: 'a', path: 'direct', key: 'k', n: 1, fate: 'well' }
const CONFIRMED: Line = { is: 'told', by: 1, id: 'a', outcome: 'confirmed' }
/** Of 2, from its first renewal: asleep from the start. */
const SLEPT: Line = { is: 'silent', by: 2, from: 0 }
const DIED: Line = { is: 'died', by: 0, worker: 2, how: 'killed' }

const started = (by: number, token: number): Line => {
  return { is: 'started', by, id: 'a', token, attempt: 1, generation: 0 }
}
const effect = (by: number, token: number): Line => ({ is: 'effect', by, id: 'a', token })
const ended = (by: number, token: number): Line => ({ is: 'ended', by, id: 'a', token, since: 0, as: 'completed' })
const denied = (by: number, token: number): Line => ({ is: 'denied', by, id: 'a', token, since: 0, as: 'completed' })

/** A lease apart from each other. */
function judged(...lines: readonly Line[]) {
  const { takenOver, refused, zombies, doubled, repeated } = verdictOn(lines)
  return { takenOver, refused, zombies, doubled, repeated }
}

function verdictOn(lines: readonly Line[]) {
  const all = [RULES, OFFERED, CONFIRMED, ...lines]
  const noted = all.map((line, i) => {
    const at = (i + 1) * 2 * MS
    return { ...line, at, ...('since' in line && { since: at }) } as Noted
  })
  return reconcile(noted)
}

/** Of process 3: attempt 1 failed, and that was recorded. */
const FAILED: readonly Line[] = [
  started(3, 11),
  { is: 'threw', by: 3, id: 'a', token: 11 },
  { is: 'ended', by: 3, id: 'a', token: 11, since: 0, as: 'failed' },
]

describe('the count of runs that were taken over', () => {
  const sound = { zombies: 0, doubled: 0, repeated: 0 }

  it('counts a run that another process began anew while it slept, and its late record that was refused', () => {
    const taken = [started(2, 10), started(3, 11), effect(3, 11), ended(3, 11), SLEPT]
    expect(judged(...taken)).to.deep.equal({ takenOver: 1, refused: 0, ...sound })
    expect(judged(...taken, denied(2, 10))).to.deep.equal({ takenOver: 1, refused: 1, ...sound })
  })

  it('counts a late effect that the storage refused, and none that came first', () => {
    const taken = [started(2, 10), started(3, 11), effect(3, 11), effect(2, 10), ended(3, 11), SLEPT]
    expect(judged(...taken)).to.deep.equal({ takenOver: 1, refused: 1, ...sound })
    const first = [started(2, 10), started(3, 11), effect(2, 10), effect(3, 11), ended(3, 11), SLEPT]
    expect(judged(...first)).to.deep.equal({ takenOver: 1, refused: 0, ...sound, repeated: 1 })
  })

  it('counts neither what a death left, nor what had ended, nor runs of one process', () => {
    const none = { takenOver: 0, refused: 0 }
    expect(judged(started(2, 10), DIED, started(3, 11), effect(3, 11), ended(3, 11))).to.include(none)
    const failed: Line = { is: 'ended', by: 2, id: 'a', token: 10, since: 0, as: 'failed' }
    expect(judged(started(2, 10), failed, started(3, 11), effect(3, 11), ended(3, 11))).to.include(none)
    expect(judged(started(2, 10), started(2, 11), effect(2, 11), ended(2, 11), SLEPT)).to.include(none)
  })

  it('blames no attempt on a process that slept between its lease and its handler, and any other', () => {
    expect(verdictOn([...FAILED, started(2, 10), SLEPT])).to.include({ attempts: 0, zombies: 0 })
    expect(verdictOn([...FAILED, started(2, 12), SLEPT])).to.include({ attempts: 1 })
    expect(verdictOn([...FAILED, started(2, 10)])).to.include({ attempts: 0, zombies: 1 })
  })

  it('takes a late record that was not refused for a zombie', () => {
    const late = judged(started(2, 10), started(3, 11), effect(3, 11), ended(2, 10), SLEPT)
    expect(late).to.include({ takenOver: 1, refused: 0, zombies: 1 })
  })
})

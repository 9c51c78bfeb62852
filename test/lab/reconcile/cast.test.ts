// The judges of those who are there only in some rows: histories as they may be give no fault, and each planted fault is found.

import { expect } from 'chai'
import fc from 'fast-check'
import type { CastEntry, Checked, Said } from '../ledger/cast.ts'
import { entryOf, lineOf } from '../ledger/lines.ts'
import type { Entry, Fate, Noted, Path } from '../ledger.ts'
import { reconcile } from '../reconcile.ts'
import { judgeHalves } from './halves.ts'
import { type Judgement, withJudgement } from './judgement.ts'
import { judgeLetters, QUIET } from './letters.ts'

const KINDS = ['lost', 'doubled', 'zombies', 'attempts', 'outOfOrder', 'phantom', 'left'] as const
const PRODUCER = 1
const CONSUMER = 2
const OPERATOR = 3
const CHECKER = 4
const ID = 'one'

type Kind = (typeof KINDS)[number]
type Line = Entry extends infer E ? (E extends Entry ? Omit<E, 'at'> & { readonly by: number } : never) : never
type Judge = (entries: Iterable<Noted>) => Judgement

/** In this order, a moment apart; ends were asked for a moment before. */
function noted(lines: readonly Line[]): Noted[] {
  const policy = { leaseMs: 1, concurrency: 4, inOrder: [], redelivered: 'front' as const, attempts: 1, delayMs: 0 }
  const rules: Line = { is: 'rules', by: 0, ...policy }
  return [rules, ...lines].map((line, i) => {
    const at = 1_000 * (i + 1)
    return { ...line, ...('token' in line && line.is === 'ended' && { since: at - 500 }), at } as Noted
  })
}

/** Kinds of faults, with their number; what was not tried. */
function judged(judge: Judge, lines: readonly Line[]): Partial<Record<Kind, number>> {
  const entries = noted(lines)
  const verdict = withJudgement(reconcile(entries), judge(entries))
  return Object.fromEntries(KINDS.filter((kind) => verdict[kind] > 0).map((kind) => [kind, verdict[kind]]))
}

function offered(path: Path, fate: Fate = 'well'): Line[] {
  return [{ is: 'offered', by: PRODUCER, id: ID, path, key: 'k', n: 1, fate }]
}

const confirmed: readonly Line[] = [{ is: 'told', by: PRODUCER, id: ID, outcome: 'confirmed' }]

/** A run that completes, with its effect, or ends in a letter. */
function run(token: number, generation: number, as: 'completed' | 'dead'): Line[] {
  const of = { by: CONSUMER, id: ID, token }
  const effect: Line[] = as === 'completed' ? [{ is: 'effect', ...of }] : [{ is: 'threw', ...of }]
  return [{ is: 'started', ...of, attempt: 1, generation }, ...effect, { is: 'ended', ...of, since: 0, as }]
}

function sent(generation: number): Line[] {
  return [{ is: 'replayed', by: OPERATOR, id: ID, generation }]
}

function letter(generation: number): Line[] {
  return [
    { is: 'dead', by: 0, id: ID, why: 'attempts used up' },
    { is: 'letter', by: 0, id: ID, generation },
  ]
}

const died = [...offered('direct', 'revived'), ...confirmed, ...run(1, 0, 'dead')]
const dropped: readonly Line[] = [{ is: 'dropped', by: CONSUMER, id: ID }]

describe('the judge of letters that are sent again', () => {
  const sound: Readonly<Record<string, readonly Line[]>> = {
    'handled when its letter was sent again': [...died, ...sent(1), ...run(2, 1, 'completed')],
    'handled when it was sent again twice': [
      ...died,
      ...sent(1),
      ...run(2, 1, 'dead'),
      ...sent(2),
      ...run(3, 2, 'completed'),
    ],
    'sent twice as one generation, of which one copy runs': [
      ...died,
      ...sent(1),
      ...sent(1),
      ...run(2, 1, 'completed'),
      ...dropped,
    ],
    'sent, and its letter still there': [...died, ...sent(1), ...run(2, 1, 'completed'), ...letter(0)],
    'sent by an operator who died before it noted that': [...died, ...run(2, 1, 'completed')],
    'never confirmed, dead, sent again and handled': [
      ...offered('direct', 'revived'),
      ...[...run(1, 0, 'dead'), ...sent(1), ...run(2, 1, 'completed')],
    ],
  }
  for (const [what, lines] of Object.entries(sound)) {
    it(`finds no fault in one ${what}`, () => {
      expect(judged(judgeLetters, lines)).to.deep.equal({})
    })
  }

  const planted: Readonly<Record<string, [readonly Line[], Partial<Record<Kind, number>>]>> = {
    'a lost letter: acked, and its copy nowhere': [[...died, ...sent(1)], { lost: 1 }],
    'a lost letter of a message that was never confirmed': [
      [...offered('direct', 'revived'), ...run(1, 0, 'dead')],
      { lost: 1 },
    ],
    'a letter that nobody sent again': [[...died, ...letter(0)], { left: 1 }],
    'a doubled replay: both copies complete': [
      [...died, ...sent(1), ...sent(1), ...run(2, 1, 'completed'), ...run(3, 1, 'completed')],
      { doubled: 1 },
    ],
    'two generations that complete': [
      [...died, ...sent(1), ...run(2, 1, 'completed'), ...sent(2), ...run(3, 2, 'completed')],
      { doubled: 1 },
    ],
    'a generation that runs again after it ended in a letter': [
      [...died, ...sent(1), ...run(2, 1, 'dead'), ...run(3, 1, 'dead'), ...sent(2), ...run(4, 2, 'completed')],
      { doubled: 1 },
    ],
    'an older generation that runs after a newer one had ended': [
      [...died, ...sent(1), ...run(2, 1, 'dead'), ...run(3, 0, 'dead'), ...sent(2), ...run(4, 2, 'completed')],
      { doubled: 1 },
    ],
    'a letter of the generation that completed': [
      [...died, ...sent(1), ...run(2, 1, 'completed'), ...letter(1)],
      { zombies: 1 },
    ],
  }
  for (const [what, [lines, faults]] of Object.entries(planted)) {
    it(`finds ${what}`, () => {
      expect(judged(judgeLetters, lines)).to.deep.equal(faults)
    })
  }

  it('says that no letter was sent again, and that nobody looked', () => {
    expect(judgeLetters(noted(died)).untried).to.have.lengthOf(2)
    const tried = judgeLetters(noted([...died, ...sent(1), ...run(2, 1, 'completed'), look({})]))
    expect(tried.untried).to.deep.equal([])
    expect(tried.counts).to.include({ 'letters sent again': 1, looks: 1 })
  })
})

const ALL = QUIET.map((id) => `${id}:0`)

interface Seen {
  readonly first?: readonly string[]
  readonly second?: readonly string[]
  readonly counts?: readonly [number, number, number]
  readonly spell?: number
  readonly storyless?: readonly string[]
}

function look({ first = ALL, second = ALL, counts = [40, 40, 40], spell = 0, storyless = [] }: Seen): Line {
  return { is: 'looked', by: OPERATOR, queue: 'quiet', spell, counts, first, second, storyless }
}

describe('the judge of looks at dead letters', () => {
  const moved = [...ALL.slice(1), ALL[0]!]

  it('finds no fault where each look finds the same', () => {
    expect(judged(judgeLetters, [look({}), look({})])).to.deep.equal({})
  })

  it('finds no fault in another order after a look that failed, or where the broker had letters of a dead inspector in hand', () => {
    expect(judged(judgeLetters, [look({}), look({ first: moved, second: moved, spell: 1 })])).to.deep.equal({})
    expect(judged(judgeLetters, [look({ first: ALL.slice(3), counts: [37, 40, 40] })])).to.deep.equal({})
  })

  it('finds a letter that a look did not find', () => {
    expect(judged(judgeLetters, [look({ second: ALL.slice(1) })])).to.deep.equal({ lost: 1 })
  })

  it('finds letters that are gone at the end, whatever the counts say', () => {
    const last = { ...look({ first: ALL.slice(2), second: ALL.slice(2), counts: [38, 38, 38] }), by: 0 }
    expect(judged(judgeLetters, [look({}), last])).to.have.property('lost')
  })

  it('finds a letter that is there twice, and one that was changed', () => {
    expect(judged(judgeLetters, [look({ second: [...ALL, ALL[0]!], counts: [40, 40, 41] })])).to.have.property(
      'doubled',
    )
    const changed = [`${QUIET[0]}:1`, ...ALL.slice(1)]
    expect(judged(judgeLetters, [look({ second: changed })])).to.include({ doubled: 1, lost: 1 })
  })

  it('finds another order, in one look and from one look to the next', () => {
    expect(judged(judgeLetters, [look({ second: moved })])).to.deep.equal({ outOfOrder: 1 })
    expect(judged(judgeLetters, [look({}), look({ first: moved, second: moved })])).to.deep.equal({ outOfOrder: 1 })
  })

  it('finds a letter without its story', () => {
    expect(judged(judgeLetters, [look({ storyless: ['one:0'] })])).to.deep.equal({ lost: 1 })
  })
})

const prepared: readonly Line[] = [...offered('half'), { is: 'prepared', by: PRODUCER, id: ID }]
const done: readonly Line[] = [{ is: 'committed', by: 0, id: ID }]
const arrived = run(1, 0, 'completed')
const killed: readonly Line[] = [{ is: 'died', by: 0, worker: PRODUCER, how: 'killed' }]

function said(what: Said): Line[] {
  return [{ is: 'said', by: PRODUCER, id: ID, what }]
}

function checked(answer: Checked): Line[] {
  return [{ is: 'checked', by: CHECKER, id: ID, answer }]
}

describe('the judge of half messages', () => {
  const sound: Readonly<Record<string, readonly Line[]>> = {
    'committed by its sender': [...prepared, ...confirmed, ...said('commit'), ...arrived, ...done],
    'committed by a check': [...prepared, ...confirmed, ...killed, ...checked('commit'), ...arrived, ...done],
    'rolled back by its sender': [...prepared, ...said('rollback')],
    'rolled back by a check': [...prepared, ...killed, ...checked('unknown'), ...checked('rollback')],
    'which the broker never stored': offered('half'),
  }
  for (const [what, lines] of Object.entries(sound)) {
    it(`finds no fault in one ${what}`, () => {
      expect(judged(judgeHalves, lines)).to.deep.equal({})
    })
  }

  const planted: Readonly<Record<string, [readonly Line[], Partial<Record<Kind, number>>]>> = {
    'one that was rolled back, and arrives': [[...prepared, ...said('rollback'), ...arrived], { phantom: 1 }],
    'one that a check rolled back, and arrives': [[...prepared, ...checked('rollback'), ...arrived], { phantom: 1 }],
    'one that is committed, and never arrives': [[...prepared, ...confirmed, ...said('commit'), ...done], { lost: 1 }],
    'one that nobody decides': [[...prepared, ...killed], { lost: 1 }],
    'one that nobody ever knows': [[...prepared, ...checked('unknown')], { lost: 1 }],
    'one that arrives twice': [
      [...prepared, ...confirmed, ...said('commit'), ...arrived, ...run(2, 0, 'completed'), ...done],
      { doubled: 1 },
    ],
    'a commit that was refused': [
      [...prepared, ...confirmed, ...said('commit'), { is: 'contradicted', by: PRODUCER, id: ID }, ...arrived, ...done],
      { zombies: 1 },
    ],
    'a check that answered against the work': [
      [...prepared, ...confirmed, ...checked('rollback'), ...arrived, ...done],
      { zombies: 1 },
    ],
    'one that lies in its queue at the end': [
      [...prepared, { is: 'left', by: 0, id: ID, where: 'the half messages' }],
      { left: 1 },
    ],
  }
  for (const [what, [lines, faults]] of Object.entries(planted)) {
    it(`finds ${what}`, () => {
      expect(judged(judgeHalves, lines)).to.deep.equal(faults)
    })
  }

  it('says that no check decided anything', () => {
    const { untried, counts } = judgeHalves(noted(sound['committed by its sender']!))
    expect(untried).to.have.lengthOf(2)
    expect(counts).to.include({ 'half messages': 1, 'committed by check': 0 })
    const { counts: cut } = judgeHalves(noted(sound['committed by a check']!))
    expect(cut).to.include({ 'committed by check': 1, 'cut short by a death': 1 })
    const dies: Line[] = [
      { is: 'checking', by: CHECKER, id: ID },
      { is: 'died', by: 0, worker: CHECKER, how: 'killed' },
    ]
    const { counts: died } = judgeHalves(noted([...prepared, ...dies, { ...checked('rollback')[0]!, by: 9 }]))
    expect(died).to.include({ 'rolled back by check': 1, 'checks cut short by a death': 1 })
  })
})

describe('what the cast notes', () => {
  const number = fc.nat(Number.MAX_SAFE_INTEGER)
  const id = fc.string({ unit: 'grapheme', minLength: 1 })
  const ids = fc.array(id, { maxLength: 5 })
  const entry: fc.Arbitrary<CastEntry> = fc.oneof(
    fc.record({
      ...{ is: fc.constant('looked' as const), at: number, queue: fc.constantFrom('quiet' as const, 'busy' as const) },
      ...{ spell: number, counts: fc.tuple(number, number, number), first: ids, second: ids, storyless: ids },
    }),
    fc.record({ is: fc.constant('replaying' as const), at: number, stage: fc.constantFrom('begun' as const, 'ended') }),
    fc.record({ is: fc.constantFrom('replayed' as const, 'letter' as const), at: number, id, generation: number }),
    fc.record({
      is: fc.constantFrom('prepared' as const, 'checking' as const, 'contradicted' as const),
      at: number,
      id,
    }),
    fc.record({
      ...{ is: fc.constant('said' as const), at: number, id },
      what: fc.constantFrom('commit' as const, 'rollback', 'nothing'),
    }),
    fc.record({
      ...{ is: fc.constant('checked' as const), at: number, id },
      answer: fc.constantFrom('commit' as const, 'rollback', 'unknown'),
    }),
  )

  it('is read back from its line', () => {
    const isReadBack = (one: CastEntry) => void expect(entryOf(lineOf(one))).to.deep.equal(one)
    fc.assert(fc.property(entry, isReadBack))
  })
})

// The reconciliation itself: histories as they may be give no fault; each planted fault is found, and nothing else.

import { expect } from 'chai'
import fc from 'fast-check'
import type { Noted } from './ledger.ts'
import { randomFrom } from './random.ts'
import { CONCURRENCY, DIES, FALLS_SILENT, play, type Script, Telling, type World } from './reconcile/history.ts'
import { longestGapNs } from './reconcile/order.ts'
import { reconcile } from './reconcile.ts'

const KINDS = ['lost', 'doubled', 'zombies', 'attempts', 'outOfOrder', 'phantom', 'left'] as const

type Kind = (typeof KINDS)[number]

const direct = (key: string) => new Telling('direct', key)
const outbox = (key: string, n = 1) => new Telling('outbox', key, n)

/** As it may be. */
const SOUND: Readonly<Record<string, (key: string, places: () => number) => Script>> = {
  plainly(key) {
    const told = direct(key)
    return { first: told.accepted(), second: told.run(2, 100) }
  },
  'unknown at first, and the copy dropped'(key) {
    const told = direct(key)
    return {
      first: [...told.offered(), ...told.told('unknown', 'refused', 'confirmed')],
      second: [...told.run(2, 100), ...told.dropped(3)],
    }
  },
  'offered, and never known to have arrived'(key) {
    return { first: direct(key).offered(), second: [] }
  },
  'unknown, never offered again, and arrived'(key) {
    const told = direct(key)
    return { first: [...told.offered(), ...told.told('unknown'), ...told.withdrawn()], second: told.run(2, 100) }
  },
  'unknown or nacked, never offered again, and never arrived'(key) {
    const told = direct(key)
    return { first: [...told.offered(), ...told.told('unknown', 'nacked'), ...told.withdrawn()], second: [] }
  },
  'not sent, never offered again, and never arrived'(key) {
    const told = direct(key)
    return { first: [...told.offered(), ...told.told('not-sent'), ...told.withdrawn()], second: [] }
  },
  'not sent, offered again, and handled'(key) {
    const told = direct(key)
    return { first: [...told.offered(), ...told.told('not-sent', 'confirmed')], second: told.run(2, 100) }
  },
  'never confirmed, and handled'(key) {
    const told = direct(key)
    return { first: told.offered(), second: told.run(3, 100) }
  },
  'handled at the second attempt'(key) {
    const told = direct(key)
    return { first: [...told.accepted('late'), ...told.failed(2, 100)], second: told.run(2, 200, 2) }
  },
  'dead, as it was to be'(key) {
    const told = direct(key)
    return {
      first: [...told.accepted('dead'), ...told.failed(2, 100)],
      second: [...told.threw(2, 200, 2), ...told.ended(2, 200, 'dead'), ...told.dead()],
    }
  },
  'dead, its letter written by another process than the one whose attempt was the last'(key) {
    const told = direct(key)
    return {
      first: [...told.accepted('dead'), ...told.failed(2, 100)],
      second: [...told.failed(2, 200, 2), ...told.ended(3, 200, 'dead'), ...told.dead()],
    }
  },
  'begun by a process that dies'(key) {
    const told = direct(key)
    return { first: [...told.accepted(), ...told.started(DIES, 100)], second: told.run(3, 200) }
  },
  'begun by a process that falls silent, wakes, and is refused by storage'(key) {
    const told = direct(key)
    const woken = told.effect(FALLS_SILENT, 100)
    return {
      first: [...told.accepted(), ...told.started(FALLS_SILENT, 100)],
      second: [...told.run(2, 200), ...woken],
    }
  },
  'through the outbox, in order'(key, places) {
    const messages = [1, 2, 3].map((n) => outbox(key, n))
    const [first, second] = [places(), places()]
    return {
      first: messages.flatMap((told) => told.accepted()),
      second: [
        ...messages.flatMap((told) => told.committed()),
        ...messages[0]!.done(4, first),
        ...messages[0]!.output(4),
        ...messages[0]!.output(5),
        ...messages[1]!.done(4, second),
        ...messages[2]!.done(5, places()),
        ...messages[2]!.output(5),
        ...messages[1]!.output(5),
        ...messages[1]!.dropped(5),
      ],
    }
  },
  'rolled back'(key) {
    const told = outbox(key)
    return { first: [...told.offered(), ...told.told('refused')], second: [] }
  },
}

/** Repeated within a limit; at most twice `CONCURRENCY` by the death. */
const REPEATED: Readonly<Record<string, (key: string) => Script>> = {
  'by the death of a process'(key) {
    const told = direct(key)
    return {
      first: [...told.accepted(), ...told.started(DIES, 100), ...told.effect(DIES, 100)],
      second: told.run(2, 200),
    }
  },
  'by a silence longer than the lease'(key) {
    const told = direct(key)
    return {
      first: [...told.accepted(), ...told.started(FALLS_SILENT, 100), ...told.effect(FALLS_SILENT, 100)],
      second: told.run(2, 200),
    }
  },
}

const PLANTED: readonly (readonly [Kind, string, (key: string, places: () => number) => Script])[] = [
  ['lost', 'confirmed, and never handled', (key) => ({ first: direct(key).accepted(), second: [] })],
  ['lost', 'begun, and never finished', (key) => lostHalfWay(direct(key))],
  ['lost', 'recorded as completed without an effect', (key) => lostWithRecord(direct(key))],
  [
    'lost',
    'acked as a copy, and never handled',
    (key) => ({ first: direct(key).accepted(), second: direct(key).dropped(2) }),
  ],
  [
    'lost',
    'committed, and never handled',
    (key) => ({ first: outbox(key).accepted(), second: outbox(key).committed() }),
  ],
  ['lost', 'a COMMIT that was answered, and its row is gone', (key) => ({ first: outbox(key).accepted(), second: [] })],
  ['lost', 'an effect that was not heard of', (key, places) => unheard(outbox(key), places())],
  ['lost', 'to be dead, and neither dead nor handled', (key) => ({ first: direct(key).accepted('dead'), second: [] })],
  ['doubled', 'again after its record', (key) => again(direct(key))],
  ['doubled', 'begun again after its record, without an effect', (key) => begunAgain(direct(key))],
  ['doubled', 'twice without a record, by processes that live', (key) => beside(direct(key))],
  ['doubled', 'twice in the database', (key, places) => twice(outbox(key), places)],
  ['doubled', 'an effect that spoke with two ids', (key, places) => twoVoices(outbox(key), places())],
  ['zombies', 'an end recorded over the newer owner', (key) => zombie(direct(key))],
  ['zombies', 'a token given to two processes', (key) => sameToken(direct(key), 3)],
  ['zombies', 'a token that is older than that of a run before', (key) => olderToken(direct(key))],
  ['zombies', 'completed and dead', (key) => twoEnds(direct(key))],
  ['zombies', 'recorded as completed before its effect', (key) => recordedFirst(direct(key))],
  ['attempts', 'more than the policy has', (key) => tooMany(direct(key))],
  ['attempts', 'begun before its delay was over', (key) => early(direct(key))],
  ['attempts', 'a second one without a failure', (key) => skipped(direct(key))],
  ['attempts', 'one whose failure was recorded, again', (key) => countedTwice(direct(key))],
  ['attempts', 'given up before the last', (key) => givenUpEarly(direct(key))],
  [
    'attempts',
    'given up and never tried',
    (key) => ({ first: direct(key).accepted('dead'), second: direct(key).dead() }),
  ],
  ['outOfOrder', 'the second of a key before the first', (key, places) => swapped(key, places)],
  [
    'outOfOrder',
    'a second one, committed without an answer, before the first',
    (key, places) => swappedUntold(key, places),
  ],
  ['phantom', 'handled, and never offered', (key) => ({ first: direct(key).run(2, 100), second: [] })],
  ['phantom', 'not sent, never offered again, and handled', (key) => withdrawn(direct(key), 'not-sent')],
  ['phantom', 'returned, never offered again, and handled', (key) => withdrawn(direct(key), 'returned')],
  ['phantom', 'begun, and never offered', (key) => ({ first: direct(key).started(2, 100), second: [] })],
  ['phantom', 'handled, and rolled back', (key, places) => rolledBack(outbox(key), places())],
  ['phantom', 'it spoke without an effect', (key) => ({ first: outbox(key).offered(), second: outbox(key).output(4) })],
  ['left', 'in a queue', (key) => ({ first: direct(key).accepted(), second: direct(key).left() })],
  ['left', 'dead, and not meant to be', (key) => ({ first: direct(key).accepted(), second: direct(key).dead() })],
]

/** What is excused where Redis forgets between the acts, and what is not. */
const FORGOTTEN: readonly (readonly [string, Planter, 'all' | 'the last', Partial<Record<Kind, number>>])[] = [
  ['a run again, whose record was made before', (key) => again(direct(key)), 'all', {}],
  ['a run again, whose record was made before', (key) => again(direct(key)), 'the last', { doubled: 1 }],
  ['a run again, whose record was made afterwards', (key) => againLater(direct(key)), 'all', { doubled: 1 }],
  ['a run begun again, whose record was made before', (key) => begunAgain(direct(key)), 'all', {}],
  ['a second run beside a lease from before', (key) => beside(direct(key)), 'all', {}],
  ['a second run beside a lease from before', (key) => beside(direct(key)), 'the last', { doubled: 1 }],
  ['an end recorded over an owner from before', (key) => overwritten(direct(key)), 'all', {}],
  ['an end recorded over an owner from before', (key) => overwritten(direct(key)), 'the last', { zombies: 1 }],
  ['an end recorded over an owner from afterwards', (key) => zombie(direct(key)), 'all', { zombies: 1 }],
  ['an attempt again, whose failure was recorded before', (key) => countedTwice(direct(key)), 'all', {}],
  [
    'an attempt again, whose failure was recorded before',
    (key) => countedTwice(direct(key)),
    'the last',
    { attempts: 1 },
  ],
  ['a token given to two processes', (key) => sameToken(direct(key), 3), 'all', { zombies: 1 }],
  ['a token that is older than that of a run before', (key) => olderToken(direct(key)), 'all', { zombies: 1 }],
]

const scripts = fc.record({
  sound: fc.array(fc.constantFrom(...Object.keys(SOUND)), { maxLength: 40 }),
  byDeath: fc.nat(2 * CONCURRENCY),
  bySilence: fc.nat(10),
  seed: fc.integer(),
})

type Drawn = typeof scripts extends fc.Arbitrary<infer T> ? T : never

const CALM: Drawn = { sound: [], byDeath: 0, bySilence: 0, seed: 1 }

/** Of all these; and more. */
function history(
  { sound, byDeath, bySilence, seed }: Drawn,
  more: readonly Planter[] = [],
  world: World = {},
): Noted[] {
  let place = 0
  const places = () => ++place
  const repeats = [...Array<string>(byDeath).fill('by the death of a process')].concat(
    Array<string>(bySilence).fill('by a silence longer than the lease'),
  )
  const all = [
    ...sound.map((name, i) => SOUND[name]!(`sound${i}`, places)),
    ...repeats.map((name, i) => REPEATED[name]!(`repeated${i}`)),
    ...more.map((plant, i) => plant(`planted${i}`, places)),
  ]
  return play(all, randomFrom(seed), world)
}

type Planter = (key: string, places: () => number) => Script

function faultsIn(entries: readonly Noted[]): Partial<Record<Kind, number>> {
  const verdict = reconcile(entries)
  return Object.fromEntries(KINDS.map((kind) => [kind, verdict[kind]] as const).filter(([, count]) => count > 0))
}

describe("the lab's reconciliation", () => {
  it('finds no fault in any history as it may be, and counts what a limit explains', () => {
    fc.assert(
      fc.property(scripts, (drawn) => {
        const verdict = reconcile(history(drawn))
        expect(verdict.evidence).to.deep.equal([])
        expect(verdict.repeated).to.equal(drawn.byDeath + drawn.bySilence)
        const count = (beginning: string) => drawn.sound.filter((name) => name.startsWith(beginning)).length
        expect(verdict.deadLetters).to.equal(count('dead'))
        const withdrawn = count('unknown, never') + count('unknown or nacked')
        const told = withdrawn + count('unknown at first')
        expect(verdict.unknown).to.deep.equal({ told, withdrawn, arrived: count('unknown, never') })
        expect(verdict.neverSent).to.equal(count('not sent, never'))
      }),
    )
  })

  it('finds no fault in any history as it may be when Redis forgets, either', () => {
    fc.assert(
      fc.property(scripts, fc.constantFrom('all' as const, 'the last' as const), (drawn, forgets) => {
        expect(reconcile(history(drawn, [], { forgets })).evidence).to.deep.equal([])
      }),
      { numRuns: 30 },
    )
  })

  for (const [kind, what, plant] of PLANTED)
    it(`finds what is planted, and only that: ${kind}, ${what}`, () => {
      fc.assert(
        fc.property(scripts, (drawn) => {
          const entries = history(drawn, [plant])
          expect(faultsIn(entries)).to.deep.equal({ [kind]: 1 })
          expect(reconcile(entries).evidence.join()).to.include('planted0')
        }),
        { numRuns: 30 },
      )
    })

  it('explains no more by one death than its process could hold', () => {
    const deaths = Array<Planter>(2 * CONCURRENCY + 2).fill(REPEATED['by the death of a process']!)
    expect(faultsIn(history(CALM, deaths))).to.deep.equal({ doubled: 2 })
  })

  for (const [what, plant, forgets, faults] of FORGOTTEN)
    it(`where Redis forgets ${forgets}, ${Object.keys(faults).length > 0 ? 'still finds' : 'excuses'} ${what}`, () => {
      const verdict = faultsIn(history(CALM, [plant], { forgets }))
      expect(verdict).to.deep.equal(faults)
    })

  it('counts what it excuses because Redis has forgotten', () => {
    const entries = history(CALM, [(key) => again(direct(key))], { forgets: 'all' })
    expect(reconcile(entries).repeated).to.equal(1)
  })

  it('finds the same where Redis forgets what nobody then asks for', () => {
    for (const [kind, , plant] of PLANTED.filter(
      ([, what]) => !/again after its record|begun again|by processes/.test(what),
    ))
      if (kind !== 'attempts' && kind !== 'zombies')
        expect(faultsIn(history(CALM, [plant], { forgets: 'all' }))).to.deep.equal({ [kind]: 1 })
  })

  it('tells how soon an attempt came after the failure before it', () => {
    const told = direct('a')
    const script = { first: [...told.accepted('late'), ...told.failed(2, 100)], second: told.run(2, 200, 2) }
    const { retried, soonestRetryMs } = reconcile(play([script], randomFrom(1)))
    expect(retried).to.equal(1)
    // What lies between the acts, and a few slices.
    expect(soonestRetryMs).to.be.within(2, 2.1)
  })

  it('excuses disorder only where the broker puts back to the end, and only what was on its way when a consumer was lost; and counts it', () => {
    let place = 0
    const lost = { is: 'unmoored', by: 4 } as const
    const { first, second } = swapped('a', () => ++place)
    const cases = [
      ['back', { first, second: [lost, ...second] }, {}, 1],
      ['front', { first, second: [lost, ...second] }, { outOfOrder: 1 }, 0],
      ['back', { first, second: [...second, lost] }, { outOfOrder: 1 }, 0],
    ] as const
    for (const [redelivered, script, faults, reordered] of cases) {
      const entries = play([script], randomFrom(1), { redelivered })
      expect(faultsIn(entries)).to.deep.equal(faults)
      expect(reconcile(entries).reordered).to.equal(reordered)
    }
  })

  it('counts an effect once that a look begun anew found twice', () => {
    const told = outbox('a')
    const found = [...told.done(4, 1), ...told.done(4, 1)]
    const second = [...told.committed(), ...found, ...told.output(4)]
    expect(faultsIn(play([{ first: told.accepted(), second }], randomFrom(1)))).to.deep.equal({})
  })

  it('measures the longest gap only while something waited', () => {
    // Nobody waits between 20 and 90; from 90 on somebody does, until 150.
    const waits = [
      [5, 10],
      [12, 20],
      [90, 150],
      [100, 151],
    ] as const
    expect(longestGapNs(waits)).to.equal(60)
    expect(longestGapNs([])).to.equal(0)
  })
})

function lostHalfWay(told: Telling): Script {
  return { first: told.accepted(), second: told.started(2, 100) }
}

function lostWithRecord(told: Telling): Script {
  return { first: told.accepted(), second: [...told.started(2, 100), ...told.ended(2, 100)] }
}

function unheard(told: Telling, place: number): Script {
  return { first: told.accepted(), second: [...told.committed(), ...told.done(4, place)] }
}

function again(told: Telling): Script {
  return { first: [...told.accepted(), ...told.run(2, 100)], second: told.run(3, 200) }
}

function begunAgain(told: Telling): Script {
  return { first: [...told.accepted(), ...told.run(2, 100)], second: told.started(3, 200) }
}

function againLater(told: Telling): Script {
  return { first: told.accepted(), second: [...told.run(2, 100), ...told.run(3, 200)] }
}

function overwritten(told: Telling): Script {
  const first = [...told.accepted(), ...told.started(2, 100), ...told.effect(2, 100), ...told.started(3, 200)]
  return { first, second: told.ended(2, 100) }
}

function olderToken(told: Telling): Script {
  return { first: [...told.accepted(), ...told.run(2, 200)], second: told.started(3, 100) }
}

function tooMany(told: Telling): Script {
  const buried = [...told.started(2, 300, 3), ...told.ended(2, 300, 'dead'), ...told.dead()]
  return { first: [...told.accepted('dead'), ...told.failed(2, 100)], second: [...told.failed(2, 200, 2), ...buried] }
}

function early(told: Telling): Script {
  return { first: told.accepted('late'), second: [...told.failed(2, 100), ...told.run(2, 200, 2)] }
}

function skipped(told: Telling): Script {
  return { first: told.accepted(), second: told.run(2, 100, 2) }
}

function countedTwice(told: Telling): Script {
  return { first: [...told.accepted('late'), ...told.failed(2, 100)], second: told.run(3, 200) }
}

function givenUpEarly(told: Telling): Script {
  return { first: [...told.accepted('dead'), ...told.failed(2, 100)], second: told.dead() }
}

function withdrawn(told: Telling, outcome: 'not-sent' | 'returned'): Script {
  return { first: [...told.offered(), ...told.told(outcome), ...told.withdrawn()], second: told.run(2, 100) }
}

function beside(told: Telling): Script {
  return {
    first: [...told.accepted(), ...told.started(2, 100), ...told.effect(2, 100)],
    second: told.run(3, 200),
  }
}

function twice(told: Telling, places: () => number): Script {
  const done = [...told.done(4, places()), ...told.done(5, places())]
  return { first: told.accepted(), second: [...told.committed(), ...done, ...told.output(4)] }
}

function twoVoices(told: Telling, place: number): Script {
  const heard = [...told.output(4), ...told.output(4, 'said again')]
  return { first: told.accepted(), second: [...told.committed(), ...told.done(4, place), ...heard] }
}

function zombie(told: Telling): Script {
  const late = told.ended(FALLS_SILENT, 100, 'failed')
  return {
    first: [...told.accepted(), ...told.started(FALLS_SILENT, 100)],
    second: [...told.started(2, 200), ...late, ...told.effect(2, 200), ...told.ended(2, 200)],
  }
}

function sameToken(told: Telling, by: number): Script {
  return { first: [...told.accepted(), ...told.started(by, 100)], second: told.run(2, 100) }
}

function twoEnds(told: Telling): Script {
  return { first: [...told.accepted(), ...told.run(2, 100)], second: told.dead() }
}

function swapped(key: string, places: () => number): Script {
  const [one, two] = [outbox(key, 1), outbox(key, 2)]
  const [before, after] = [places(), places()]
  return {
    first: [...one.accepted(), ...two.accepted()],
    second: [
      ...[...one.committed(), ...two.committed()],
      ...[...two.done(4, before), ...two.output(4), ...one.done(4, after), ...one.output(4)],
    ],
  }
}

/** Its writer died before it was answered. */
function swappedUntold(key: string, places: () => number): Script {
  const { first, second } = swapped(key, places)
  const two = outbox(key, 2)
  return { first: first.filter((line) => !(line.is === 'told' && line.id === two.id)), second }
}

function recordedFirst(told: Telling): Script {
  return { first: told.accepted(), second: [...told.started(2, 100), ...told.ended(2, 100), ...told.effect(2, 100)] }
}

function rolledBack(told: Telling, place: number): Script {
  const first = [...told.offered(), ...told.told('refused')]
  return { first, second: [...told.done(4, place), ...told.output(4)] }
}

// The reconciliation itself: what is planted is found, and nothing else.

import { expect } from 'chai'
import { type Books, bookOf, FAULTS, reconcile, type Verdict } from './ledger.ts'

const IDS = Array.from({ length: 50 }, (_, n) => `m${n}`)

function sound(): {
  [K in keyof Books]: Books[K] extends ReadonlySet<string> ? Set<string> : Map<string, never>
} & Books {
  const once = () => new Map(IDS.map((id) => [id, 1]))
  const outputs = new Map(IDS.map((id) => [id, new Map([[`of-${id}`, 1]])]))
  const keys = new Map([
    ['a', IDS.slice(0, 10)],
    ['b', IDS.slice(10, 20)],
  ])
  return { committed: new Set(IDS), keys, arrived: once(), effects: once(), outputs } as never
}

/** Changes sound books, and gives what is then found beside nothing. */
function found(
  plant: (books: {
    committed: Set<string>
    arrived: Map<string, number>
    effects: Map<string, number>
    outputs: Map<string, Map<string, number>>
  }) => void,
): Partial<Verdict> {
  const books = sound() as never
  plant(books)
  const verdict = reconcile(books)
  return Object.fromEntries(FAULTS.filter((fault) => verdict[fault].length > 0).map((fault) => [fault, verdict[fault]]))
}

describe('scenario: reconciliation of kills', () => {
  it('finds nothing in sound books, and counts their messages', () => {
    expect(found(() => {})).to.deep.equal({})
    expect(reconcile(sound())).to.include({ messages: 50, copies: 0 })
  })

  it('finds what was committed and never arrived, by name', () => {
    const planted = found(({ arrived, effects, outputs }) => {
      for (const book of [arrived, effects, outputs]) for (const id of ['m3', 'm40']) book.delete(id)
    })
    expect(planted).to.deep.equal({ lost: ['m3', 'm40'] })
  })

  it('finds what another one of its key has overtaken, and only within a key', () => {
    const last = (...ids: string[]) =>
      found(({ arrived }) => {
        for (const id of ids) {
          arrived.delete(id)
          arrived.set(id, 1)
        }
      })
    expect(last('m4', 'm2')).to.deep.equal({ overtaken: ['m4', 'm2'] })
    expect(last('m9', 'm19', 'm30')).to.deep.equal({})
  })

  it('finds what arrived and was never committed, and its effect', () => {
    expect(found(({ committed }) => committed.delete('m7'))).to.deep.equal({ phantom: ['m7'], unfounded: ['m7'] })
  })

  it('finds an effect that is missing, and one too many', () => {
    const missing = found(({ effects, outputs }) => [effects, outputs].map((book) => book.delete('m1')))
    expect(missing).to.deep.equal({ undone: ['m1'] })
    expect(found(({ effects }) => effects.set('m1', 2))).to.deep.equal({ doubled: ['m1'] })
  })

  it('finds an effect that was not told of, one told of without being, and one told of under two ids', () => {
    expect(found(({ outputs }) => outputs.delete('m2'))).to.deep.equal({ unsaid: ['m2'] })
    expect(found(({ effects }) => effects.delete('m2'))).to.deep.equal({ undone: ['m2'], unsaid: ['m2'] })
    expect(found(({ outputs }) => outputs.get('m2')!.set('another', 1))).to.deep.equal({ saidTwice: ['m2'] })
  })

  it('counts copies on the wire, and calls them no fault', () => {
    const books = sound()
    const copied = { ...books, arrived: new Map([...books.arrived, ['m5', 4]]) }
    expect(reconcile(copied)).to.deep.include({ copies: 3, doubled: [] })
  })

  it('parts the books by protocol without losing any', () => {
    const even = (id: string) => Number(id.slice(1)) % 2 === 0
    const parts = [bookOf(sound(), even), bookOf(sound(), (id) => !even(id))].map(reconcile)
    expect(parts.map(({ messages, lost, undone, unsaid }) => ({ messages, lost, undone, unsaid }))).to.deep.equal(
      Array(2).fill({ messages: 25, lost: [], undone: [], unsaid: [] }),
    )
  })
})

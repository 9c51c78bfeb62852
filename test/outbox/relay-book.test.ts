import { expect } from 'chai'
import { Book, type BookRow, type Entry, type Verdict } from '../../lib/outbox/relay-book.ts'

const held = (delayMs = 0): Verdict => ({ state: 'held', attempts: 1, delayMs, error: new Error('no route') })
const parked: Verdict = { state: 'parked', attempts: 10, delayMs: 0, error: new Error('no route') }
const owned = () => 1

function row(position: number, key?: string, more: Partial<BookRow> = {}): BookRow {
  return { position, key, shard: 0, bytes: 10, attempts: 0, held: false, blocked: false, ...more }
}

function bookOf(...rows: BookRow[]): Book<BookRow> {
  const book = new Book<BookRow>({ windowMessages: 100, windowBytes: 10_000, perKey: 4 })
  book.take(rows, owned)
  return book
}

/** All rows that fly now. */
function flying(book: Book<BookRow>): Entry<BookRow>[] {
  const entries: Entry<BookRow>[] = []
  for (let entry = book.next(); entry; entry = book.next()) entries.push(entry)
  return entries
}

const positions = (entries: readonly Entry<BookRow>[]) => entries.map(({ row }) => row.position)

describe('the book of a relay', () => {
  it('lets one row of a key fly at a time, and the next only when that one is confirmed', () => {
    const book = bookOf(row(1, 'a'), row(2, 'a'), row(3, 'b'))
    const [first, other] = flying(book)
    expect(positions([first!, other!])).deep.equal([1, 3])
    book.confirmed(other!)
    expect(flying(book)).empty
    book.confirmed(first!)
    expect(positions(flying(book))).deep.equal([2])
  })

  it('lets rows without a key fly side by side', () => {
    expect(positions(flying(bookOf(row(1), row(2), row(3))))).deep.equal([1, 2, 3])
  })

  it('takes no row twice until the table knows that it was sent', () => {
    const book = bookOf(row(1, 'a'))
    const [one] = flying(book)
    book.take([row(1, 'a')], owned)
    book.confirmed(one!)
    book.take([row(1, 'a')], owned)
    expect(flying(book)).empty
    book.cleared(1)
    expect(book.count).equal(0)
    book.take([row(1, 'a')], owned)
    expect(positions(flying(book))).deep.equal([1])
  })

  it('clears what was confirmed when it was told, and keeps what is confirmed meanwhile', () => {
    const book = bookOf(row(1), row(2))
    const [one, two] = flying(book)
    book.confirmed(one!)
    const told = book.done.length
    book.confirmed(two!)
    book.cleared(told)
    expect(positions(book.done)).deep.equal([2])
  })

  it('lets nothing of a key fly after a failure until the table knows of it, not even what is read meanwhile', () => {
    const book = bookOf(row(1, 'a'), row(2, 'a'))
    const [one] = flying(book)
    book.failed(one!, held())
    book.take([row(3, 'a')], owned)
    expect(flying(book)).empty
    const { failures } = book
    expect(failures.map(({ entry, followers }) => [entry.row.position, positions(followers)])).deep.equal([[1, [2, 3]]])
    expect(book.recorded(failures)).deep.equal(['a'])
    expect([book.count, book.broken]).deep.equal([0, 0])
  })

  it('puts a row that was not sent before all others of its key', () => {
    const book = bookOf(row(1, 'a'), row(2, 'a'))
    const [one] = flying(book)
    book.again(one!)
    expect(positions(flying(book))).deep.equal([1])
  })

  it('takes a beginning of what a page has of one key, and asks for no more of it until half is gone', () => {
    const book = bookOf(...[1, 2, 3, 4, 5, 6].map((n) => row(n, 'hot')), row(7, 'cold'))
    expect([...book.positions]).deep.equal([1, 2, 3, 4, 7])
    expect(book.crowded).deep.equal(['hot'])
    const room = [1, 2, 3].map(() => book.confirmed(flying(book).find(({ row }) => row.key === 'hot')!))
    expect(room).deep.equal([false, false, true])
    expect(book.crowded).empty
  })

  it('answers which rows must wait in the table behind others that are not in hand', () => {
    const book = bookOf()
    const blocked = book.take([row(1, 'a'), row(2, 'b', { blocked: true })], owned)
    expect(blocked.map(({ position }) => position)).deep.equal([2])
    expect(positions(flying(book))).deep.equal([1])
  })

  it('leaves a blocked row ready while ready rows before it are in hand: after a crash they would come behind it', () => {
    const book = bookOf(row(1, 'a'))
    expect(book.take([row(3, 'a', { blocked: true })], owned)).empty
    book.confirmed(flying(book)[0]!)
    expect(book.take([row(3, 'a', { blocked: true })], owned)).length(1)
  })

  it('takes nothing of a shard that is not ours', () => {
    const book = bookOf()
    book.take([row(1, 'a', { shard: 3 })], (shard) => (shard === 3 ? undefined : 1))
    expect(book.count).equal(0)
  })

  it('counts rows and bytes in hand, the confirmed ones too', () => {
    const book = bookOf(row(1), row(2, 'a', { bytes: 500 }))
    expect(book.room).deep.equal({ messages: 98, bytes: 9_490 })
    book.confirmed(flying(book)[1]!)
    expect(book.room.messages).equal(98)
    book.cleared(1)
    expect(book.room).deep.equal({ messages: 99, bytes: 9_990 })
    book.take([row(3, 'large', { bytes: 20_000 })], owned)
    expect(book.room.bytes).equal(0)
  })

  it('names keys of which held rows may be left that nobody has in hand: their last one here was sent, or one was given up on', () => {
    const book = bookOf(row(1, 'a', { held: true }), row(2, 'a', { held: true }), row(3, 'b'))
    const [one, three] = flying(book)
    book.confirmed(one!)
    book.confirmed(three!)
    expect(book.cleared(2)).empty
    book.confirmed(flying(book)[0]!)
    expect(book.cleared(1)).deep.equal(['a'])
    book.take([row(4, 'c', { held: true }), row(5, 'c', { held: true })], owned)
    book.failed(flying(book)[0]!, parked)
    expect(book.recorded(book.failures)).deep.equal(['c'])
  })

  describe('when a shard is lost', () => {
    it('lets go of what waits, and waits for what flies', () => {
      const book = bookOf(row(1, 'a'), row(2, 'a'))
      const [one] = flying(book)
      book.keep(() => false)
      expect([...book.positions]).deep.equal([1])
      book.confirmed(one!)
      expect(flying(book)).empty
      expect(positions(book.done)).deep.equal([1])
    })

    it('says nothing of a failure, and lets go of what came behind it under the next lease', () => {
      const book = bookOf(row(1, 'a'))
      const [one] = flying(book)
      book.keep(() => false)
      book.take([row(1, 'a'), row(2, 'a')], () => 2)
      expect(flying(book)).empty
      book.failed(one!, held())
      expect(book.failures).empty
      book.forget()
      expect([book.broken, book.count]).deep.equal([0, 0])
      book.take([row(1, 'a'), row(2, 'a')], () => 2)
      expect(positions(flying(book))).deep.equal([1])
    })

    it('takes nothing that was read meanwhile behind a row that was not sent', () => {
      for (const end of ['failed', 'again'] as const) {
        const book = bookOf(row(1, 'a'))
        const [one] = flying(book)
        book.keep(() => false)
        book[end](one!, held())
        book.take([row(2, 'a')], () => 2)
        expect(flying(book)).empty
        book.forget()
        expect(book.count).equal(0)
      }
    })

    it('forgets failures that the table does not know of', () => {
      const book = bookOf(row(1, 'a'), row(2, 'a'))
      book.failed(flying(book)[0]!, held())
      book.keep(() => false)
      expect([book.broken, book.count, book.room.bytes]).deep.equal([0, 0, 10_000])
    })

    it('still has what is confirmed cleared', () => {
      const book = bookOf(row(1, 'a'))
      book.confirmed(flying(book)[0]!)
      book.keep(() => false)
      expect(positions(book.done)).deep.equal([1])
    })
  })

  it('lets go of all that waits when its relay closes', () => {
    const book = bookOf(row(1, 'a'), row(2, 'a'), row(3))
    const [one] = flying(book)
    book.dropWaiting()
    expect([...book.positions]).deep.equal([1, 3])
    book.confirmed(one!)
    expect(flying(book)).empty
  })
})

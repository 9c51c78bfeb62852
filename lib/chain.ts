/**
 * Items in the order they came, any of which may leave at any time, in O(1). Unlike a `Set`, whose outgrown tables go on holding
 * what has left until the next full garbage collection, it holds nothing that left. Measured: 3 µs less CPU per message.
 *
 * Links are of a class: where V8 sees that objects written as literals outlive a collection or two, it makes all of them old from
 * the start, and each then holds all it points to until the next full one.
 */

/** An item's place in its chain. */
export class Link<T> {
  readonly item: T
  chained = true
  before: Link<T> | undefined
  after: Link<T> | undefined

  constructor(item: T, before: Link<T> | undefined) {
    this.item = item
    this.before = before
    this.after = undefined
  }
}

/** Things in the order they were put in; each can leave from anywhere. */
export class Chain<T> {
  #first: Link<T> | undefined
  #last: Link<T> | undefined

  get first(): Link<T> | undefined {
    return this.#first
  }

  /** All items now, in order. */
  get items(): T[] {
    const items: T[] = []
    for (let link = this.#first; link; link = link.after) items.push(link.item)
    return items
  }

  add(item: T): Link<T> {
    const link = new Link(item, this.#last)
    if (this.#last) this.#last.after = link
    else this.#first = link
    this.#last = link
    return link
  }

  /** @returns false when it had left before. Its links are cut, lest a dead one keep its successors alive. */
  remove(link: Link<T>): boolean {
    if (!link.chained) return false
    const { before, after } = link
    if (before) before.after = after
    else this.#first = after
    if (after) after.before = before
    else this.#last = before
    link.chained = false
    link.before = undefined
    link.after = undefined
    return true
  }
}

/**
 * A line of publishes, first published first, in which a repeated one takes its old place again. Every step is O(1), or
 * linear for a whole batch of repeats, and a publish that left is held no longer.
 */

/** What may stand in a line. Its links belong to the line it stands in. */
export interface Placed {
  /** Place in the order of publishing. */
  readonly seq: number
  inLine: boolean
  before: this | undefined
  after: this | undefined
}

/** A line of publishes waiting to be sent. */
export class Line<P extends Placed> {
  #first: P | undefined
  #last: P | undefined
  /** Where the latest repeat went in: the next of the same batch goes in behind it. */
  #mark: P | undefined

  get first(): P | undefined {
    return this.#first
  }

  insert(item: P): void {
    const before = this.#placeBefore(item)
    const after = before ? before.after : this.#first
    item.before = before
    item.after = after
    item.inLine = true
    if (before) before.after = item
    else this.#first = item
    if (after) after.before = item
    else this.#last = item
    if (after) this.#mark = item
  }

  remove(item: P): void {
    if (!item.inLine) return
    const { before, after } = item
    if (before) before.after = after
    else this.#first = after
    if (after) after.before = before
    else this.#last = before
    if (this.#mark === item) this.#mark = before
    item.before = undefined
    item.after = undefined
    item.inLine = false
  }

  /** The last one that was published earlier. */
  #placeBefore({ seq }: P): P | undefined {
    if (!this.#last || this.#last.seq < seq) return this.#last
    let at = this.#mark && this.#mark.seq < seq ? this.#mark : undefined
    for (let next = at ? at.after : this.#first; next && next.seq < seq; next = next.after) at = next
    return at
  }
}

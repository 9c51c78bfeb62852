/**
 * The book of a relay: which rows it has in hand, and what may happen to them next. Pure: knows no broker, no database, no clock.
 *
 *     table ──take()──▶ waiting ──next()──▶ flying ──confirmed()──▶ done ──cleared()──▶ out of hand
 *                          ▲                  │ ├──failed()──▶ its key is broken ──recorded()──▶ out of hand, followers too
 *                          └─────again()──────┘ └──its shard was lost──▶ stale: done, or forgotten
 *
 * Promises: rows of one key fly one at a time, in the order they were taken, the next only after the one before is confirmed; rows
 * without a key fly side by side; whatever has failed keeps its key from flying until the database knows of it; a row in hand is
 * never taken twice; no more than `perKey` rows of one key are in hand, and of a page that brings more only a beginning is taken.
 * Relies on its user: a page has each key's rows as one statement saw them, in order, none left out but those that were in hand when
 * the statement was sent; and `recorded()`, `forget()` and `keep()`, by which rows leave that were not sent, are not called between that
 * and `take()`. What is done may be cleared meanwhile.
 */

/** What the book needs to know of a row. */
export interface BookRow {
  readonly position: number
  readonly shard: number
  readonly key: string | undefined
  readonly bytes: number
  /** How often it failed so far. */
  readonly attempts: number
  /** Its state in the table is held, not ready. */
  readonly held: boolean
  /** A held row of its key, that is not in hand, goes first: this one must become held, too. */
  readonly blocked: boolean
}

/** What is to become of a row that could not be sent. */
export interface Verdict {
  readonly state: 'held' | 'parked'
  /** What the table shall say. */
  readonly attempts: number
  /** Until it is tried again. */
  readonly delayMs: number
  readonly error: Error
}

/** A row in hand. */
export interface Entry<R extends BookRow> {
  readonly row: R
  /** The lease under which it was taken. */
  readonly epoch: number
  readonly chain: Chain<R>
  phase: 'waiting' | 'flying' | 'done' | 'failed'
  /** Its shard was lost while it flew. */
  stale: boolean
}

/** The rows of one key, or one row without a key. */
interface Chain<R extends BookRow> {
  readonly key: string | undefined
  waiting: Entry<R>[]
  flying: Entry<R> | undefined
  /** Its first row has failed, or (forget) was not sent under a lease that is over: nothing flies until that is seen to. */
  verdict: Verdict | 'forget' | undefined
  queued: boolean
}

/** A row that failed, and those of its key behind it. */
export interface Failure<R extends BookRow> {
  readonly entry: Entry<R>
  readonly verdict: Verdict
  readonly followers: readonly Entry<R>[]
}

/** How much may be in hand. */
export interface BookBounds {
  readonly windowMessages: number
  readonly windowBytes: number
  readonly perKey: number
}

/** The rows one relay has in hand. */
export class Book<R extends BookRow> {
  readonly #bounds: BookBounds
  readonly #hand = new Map<number, Entry<R>>()
  readonly #chains = new Map<string, Chain<R>>()
  readonly #broken = new Set<Chain<R>>()
  #queue: Chain<R>[] = []
  #queueAt = 0
  #done: Entry<R>[] = []
  #bytes = 0
  #flying = 0
  #letGo = 0

  constructor(bounds: BookBounds) {
    this.#bounds = bounds
  }

  /** Rows in hand, the settled ones not counted. */
  get count(): number {
    return this.#hand.size
  }

  get flying(): number {
    return this.#flying
  }

  /** How many rows were not taken, or let go of without being sent, so far: they are still in the table. */
  get letGo(): number {
    return this.#letGo
  }

  /** What is confirmed, and the table does not know of it. */
  get done(): readonly Entry<R>[] {
    return this.#done
  }

  /** Keys that wait until a failure is seen to. */
  get broken(): number {
    return this.#broken.size
  }

  /** How much more may be taken. */
  get room(): { readonly messages: number; readonly bytes: number } {
    const { windowMessages, windowBytes } = this.#bounds
    return {
      messages: Math.max(0, windowMessages - this.#hand.size),
      bytes: Math.max(0, windowBytes - this.#bytes),
    }
  }

  get positions(): Iterable<number> {
    return this.#hand.keys()
  }

  /** Keys of which so much is in hand that no more should be asked for now. */
  get crowded(): string[] {
    const keys: string[] = []
    for (const chain of this.#chains.values()) if (this.#isCrowded(chain)) keys.push(chain.key!)
    return keys
  }

  has(shard: number): boolean {
    for (const { row } of this.#hand.values()) if (row.shard === shard) return true
    return false
  }

  /**
   * Takes a page in hand.
   * @param epochOf the lease of a shard; undefined where it is not ours
   * @returns rows that must become held behind others of their key
   */
  take(page: readonly R[], epochOf: (shard: number) => number | undefined): R[] {
    return page.filter((row) => {
      const epoch = epochOf(row.shard)
      if (this.#hand.has(row.position)) return false
      if (epoch !== undefined && row.blocked && !this.#hasReady(row.key!)) return true
      if (epoch === undefined || row.blocked) this.#letGo++
      else this.#add(row, epoch)
      return false
    })
  }

  /**
   * Rows of the key that are ready in the table go before what is blocked by one that an operator retries: if that became held, a relay
   * after us would send it before them.
   */
  #hasReady(key: string): boolean {
    const chain = this.#chains.get(key)
    return chain !== undefined && [...chain.waiting, ...(chain.flying ? [chain.flying] : [])].some((it) => !it.row.held)
  }

  /** The next row that may fly, if there is one; it flies from now on. */
  next(): Entry<R> | undefined {
    while (this.#queueAt < this.#queue.length) {
      const chain = this.#queue[this.#queueAt++]!
      chain.queued = false
      const entry = chain.waiting.shift()
      if (!entry) continue
      entry.phase = 'flying'
      chain.flying = entry
      this.#flying++
      return entry
    }
    this.#queue = []
    this.#queueAt = 0
    return undefined
  }

  /** @returns whether its key was crowded, and no longer is: more of it may be asked for */
  confirmed(entry: Entry<R>): boolean {
    const { chain } = entry
    const wasCrowded = this.#isCrowded(chain)
    this.#land(entry)
    entry.phase = 'done'
    this.#done.push(entry)
    this.#advance(chain)
    return wasCrowded && !this.#isCrowded(chain)
  }

  /** It could not be sent; of a shard that is no longer ours the table is told nothing. */
  failed(entry: Entry<R>, verdict: Verdict): void {
    const { chain } = entry
    this.#land(entry)
    chain.waiting.unshift(entry)
    this.#break(entry, entry.stale ? 'forget' : verdict)
  }

  /** It was not sent, through no fault of its own: it waits again, before all others of its key. */
  again(entry: Entry<R>): void {
    const { chain } = entry
    this.#land(entry)
    chain.waiting.unshift(entry)
    entry.phase = 'waiting'
    if (entry.stale) this.#break(entry, 'forget')
    else this.#enqueue(chain)
  }

  get failures(): Failure<R>[] {
    return [...this.#broken].flatMap(({ waiting, verdict }) => {
      const [entry, ...followers] = waiting
      return verdict === undefined || verdict === 'forget' ? [] : [{ entry: entry!, verdict, followers }]
    })
  }

  /** Lets go of what was not sent under a lease that is over. Not while a page is read: it would go on behind what is let go of. */
  forget(): void {
    for (const chain of this.#broken) if (chain.verdict === 'forget') this.#forgetChain(chain)
  }

  /**
   * The table knows that the first so many of `done` were sent.
   * @returns keys of which held rows may be left that nobody has in hand
   */
  cleared(count: number): string[] {
    const keys = new Set<string>()
    for (const { row } of this.#done.splice(0, count)) {
      this.#drop(row)
      if (row.held && row.key !== undefined && !this.#chains.has(row.key)) keys.add(row.key)
    }
    return [...keys]
  }

  /**
   * The table knows of these failures.
   * @returns the same
   */
  recorded(failures: readonly Failure<R>[]): string[] {
    for (const { entry } of failures) if (this.#broken.has(entry.chain)) this.#forgetChain(entry.chain)
    return [...new Set(failures.flatMap(({ entry }) => entry.row.key ?? []))]
  }

  /** Lets go of whatever was taken under a lease that is over. What flies is waited for, what is confirmed is still settled. */
  keep(holds: (shard: number, epoch: number) => boolean): void {
    for (const entry of [...this.#hand.values()]) {
      if (entry.phase === 'done' || holds(entry.row.shard, entry.epoch)) continue
      if (entry.phase === 'flying') entry.stale = true
      else if (entry.phase === 'failed') this.#forgetChain(entry.chain)
      else this.#forgetWaiting(entry)
    }
  }

  /** Lets go of all that waits. */
  dropWaiting(): void {
    for (const entry of [...this.#hand.values()]) if (entry.phase === 'waiting') this.#forgetWaiting(entry)
  }

  #add(row: R, epoch: number): void {
    const chain = this.#chainOf(row.key)
    if (sizeOf(chain) >= this.#bounds.perKey) {
      this.#letGo++
      return
    }
    const entry: Entry<R> = { row, epoch, chain, phase: 'waiting', stale: false }
    chain.waiting.push(entry)
    this.#hand.set(row.position, entry)
    this.#bytes += row.bytes
    if (!chain.flying && !chain.verdict) this.#enqueue(chain)
  }

  #isCrowded(chain: Chain<R>): boolean {
    return chain.key !== undefined && sizeOf(chain) * 2 >= this.#bounds.perKey
  }

  #chainOf(key: string | undefined): Chain<R> {
    const known = key === undefined ? undefined : this.#chains.get(key)
    if (known) return known
    const chain: Chain<R> = { key, waiting: [], flying: undefined, verdict: undefined, queued: false }
    if (key !== undefined) this.#chains.set(key, chain)
    return chain
  }

  #land(entry: Entry<R>): void {
    this.#flying--
    entry.chain.flying = undefined
  }

  #break(entry: Entry<R>, verdict: Verdict | 'forget'): void {
    entry.phase = 'failed'
    entry.chain.verdict = verdict
    this.#broken.add(entry.chain)
  }

  #advance(chain: Chain<R>): void {
    if (chain.waiting.length > 0) this.#enqueue(chain)
    else if (chain.key !== undefined && !chain.flying) this.#chains.delete(chain.key)
  }

  #enqueue(chain: Chain<R>): void {
    if (chain.queued) return
    chain.queued = true
    this.#queue.push(chain)
  }

  #forgetWaiting(entry: Entry<R>): void {
    const { chain } = entry
    chain.waiting = chain.waiting.filter((other) => other !== entry)
    this.#drop(entry.row)
    this.#letGo++
    if (chain.waiting.length === 0 && !chain.flying && chain.key !== undefined) this.#chains.delete(chain.key)
  }

  #forgetChain(chain: Chain<R>): void {
    for (const { row } of chain.waiting) this.#drop(row)
    this.#letGo += chain.waiting.length
    chain.waiting = []
    this.#broken.delete(chain)
    if (chain.key !== undefined) this.#chains.delete(chain.key)
  }

  #drop(row: R): void {
    if (this.#hand.delete(row.position)) this.#bytes -= row.bytes
  }
}

function sizeOf(chain: Chain<BookRow>): number {
  return chain.waiting.length + (chain.flying ? 1 : 0)
}

/**
 * A service's own data: an append-only file of effects, one JSON line each, at most one effect per message id.
 *
 * Promises: an effect is one write(2) with O_APPEND before `once()` returns, so it survives kill -9 of this process at any point; an
 * effect that was done by a run that died before its record is recognised; a run with an older fencing token than the
 * one that did the effect is refused. Does NOT promise to survive a power cut: nothing here waits for the disk (a shop has a database).
 */
import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

/** One effect of one message. */
export interface Entry {
  readonly messageId: string
  /** Fencing token of the run that did it. */
  readonly token: number
  readonly orderId: string
  readonly effect: 'reserved' | 'rejected' | 'released' | 'charged' | 'declined' | 'closed'
  /** What was charged. */
  readonly cents?: number
  /** What was taken from the shelves, or put back. */
  readonly lines?: readonly { readonly sku: string; readonly quantity: number }[]
  /** How an order was closed: the type of the message that closed it. */
  readonly by?: string
}

/** What a handler decides; the journal adds whose doing it was. */
export type Effect = Omit<Entry, 'messageId' | 'token'>

export class Journal {
  readonly #file: number
  readonly #learn: (entry: Entry) => void
  readonly #byMessage = new Map<string, Entry>()

  /** Opens or creates `path`. `learn` gets every effect so far, and then every new one, once. */
  constructor(path: string, learn: (entry: Entry) => void = () => {}) {
    this.#learn = learn
    this.#file = openSync(path, 'a+')
    const content = readFileSync(path)
    const { values, bytes } = wholeLines<Entry>(content)
    if (bytes < content.length) ftruncateSync(this.#file, bytes)
    for (const entry of values) this.#remember(entry)
  }

  /**
   * Does the effect of a message, unless it was done before.
   * @throws Error when a run with a newer fencing token did it: this run was taken over and must end
   */
  once(messageId: string, token: number | undefined, decide: () => Effect): { entry: Entry; repeated: boolean } {
    const known = this.#byMessage.get(messageId)
    if (known && (token ?? 0) < known.token) throw new Error(`run ${token} of this message was taken over`)
    if (known) return { entry: known, repeated: true }
    const entry = { messageId, token: token ?? 0, ...decide() }
    append(this.#file, entry)
    this.#remember(entry)
    return { entry, repeated: false }
  }

  #remember(entry: Entry): void {
    this.#byMessage.set(entry.messageId, entry)
    this.#learn(entry)
  }
}

/** One line, one write. */
export function append(file: number, value: object): void {
  writeSync(file, `${JSON.stringify(value)}\n`)
}

/** The complete lines of a file; `bytes` is how long they are. What follows them was cut off by a crash. */
export function wholeLines<T>(content: Buffer): { readonly values: T[]; readonly bytes: number } {
  const bytes = content.lastIndexOf('\n') + 1
  const lines = content.subarray(0, bytes).toString('utf8').split('\n').slice(0, -1)
  return { values: lines.map((line) => JSON.parse(line) as T), bytes }
}

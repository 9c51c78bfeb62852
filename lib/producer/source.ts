/**
 * Reads a source of messages until a signal fires.
 * Promises: a source that was asked for its next message and does not answer, or fails because of the signal, ends with the signal; it
 * is told to clean up, also where the signal had fired before, and not waited for, since a generator does so only once it has answered.
 */
import { unlessAborted } from '../deadline.ts'

/** The same source, which ends when the signal fires. */
export function untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal | undefined): AsyncIterable<T> {
  return signal ? { [Symbol.asyncIterator]: () => new Abortable(source[Symbol.asyncIterator](), signal) } : source
}

class Abortable<T> implements AsyncIterator<T> {
  readonly #source: AsyncIterator<T>
  readonly #signal: AbortSignal

  constructor(source: AsyncIterator<T>, signal: AbortSignal) {
    this.#source = source
    this.#signal = signal
  }

  async next(): Promise<IteratorResult<T>> {
    if (this.#signal.aborted) return this.#over()
    try {
      return await unlessAborted(Promise.resolve(this.#source.next()), this.#signal)
    } catch (error) {
      if (!this.#signal.aborted) throw error
      return this.#over()
    }
  }

  async return(): Promise<IteratorResult<T>> {
    await this.#source.return?.()
    return END
  }

  /** Whoever is told of an end lets nothing go. */
  #over(): IteratorResult<T> {
    this.return().catch(() => {})
    return END
  }
}

const END = { done: true, value: undefined } as const

/**
 * Reads a source of messages until one of some signals fires.
 * Promises: a source that was asked for its next message and does not answer, or fails because of a signal, ends with the signal; it
 * is told to clean up, also where a signal had fired before, and not waited for, since a generator does so only once it has answered.
 */
import { whenAborted } from '../deadline.ts'

/** The same source, which ends when the first of the signals fires. */
export function untilAborted<T>(
  source: AsyncIterable<T>,
  ...signals: readonly (AbortSignal | undefined)[]
): AsyncIterable<T> {
  const given = signals.filter((signal) => signal !== undefined)
  return { [Symbol.asyncIterator]: () => new Abortable(source[Symbol.asyncIterator](), given) }
}

/** Listens once for all that it is asked for: to do so for each message takes as long as to publish it. */
class Abortable<T> implements AsyncIterator<T> {
  readonly #source: AsyncIterator<T>
  readonly #signals: readonly AbortSignal[]
  readonly #leave: readonly (() => void)[]
  /** Ends the wait for what the source was asked for. */
  #stop: (() => void) | undefined

  constructor(source: AsyncIterator<T>, signals: readonly AbortSignal[]) {
    this.#source = source
    this.#signals = signals
    this.#leave = signals.map((signal) => whenAborted(signal, () => this.#stop?.()))
  }

  async next(): Promise<IteratorResult<T>> {
    if (this.#aborted) return this.#over()
    try {
      const result = await this.#asked()
      if (result.done) this.#left()
      return result
    } catch (error) {
      if (this.#aborted) return this.#over()
      this.#left()
      throw error
    }
  }

  async return(): Promise<IteratorResult<T>> {
    this.#left()
    await this.#source.return?.()
    return END
  }

  get #aborted(): boolean {
    return this.#signals.some(({ aborted }) => aborted)
  }

  #asked(): Promise<IteratorResult<T>> {
    return new Promise((resolve, reject) => {
      this.#stop = reject
      Promise.resolve(this.#source.next()).then(resolve, reject)
    })
  }

  #left(): void {
    for (const leave of this.#leave) leave()
  }

  /** Whoever is told of an end lets nothing go. */
  #over(): IteratorResult<T> {
    this.return().catch(() => {})
    return END
  }
}

const END = { done: true, value: undefined } as const

/**
 * Gathers requests that are made together and sends them together: one flight at a time, everything that comes meanwhile goes with
 * the next. A flight that fails is repeated, after a growing pause, until it succeeds or the batcher is told to give up.
 *
 *     waiting ──▶ in flight ──answered──▶ answer
 *        │           └──failed──▶ in flight again
 *        └──giveUp()──▶ undefined       (a flight that is under way is waited for: what it did must be known)
 *
 * Promises: every request is answered exactly once, in order of asking; after giveUp() within one flight's time.
 */
import { pause } from './deadline.ts'

/** How requests are sent and what is told of it. */
export interface BatcherOptions<Request, Answer> {
  /** Sends requests; answers in the same order. Must be safe to repeat, and must end. */
  readonly send: (requests: Request[]) => Promise<Answer[]>
  readonly maxBatch: number
  readonly onFailure: (error: Error) => void
  /** Waited for before each flight; ends early when the signal fires. */
  readonly ready?: (givenUp: AbortSignal) => Promise<void> | undefined
}

interface Entry<Request, Answer> {
  readonly request: Request
  readonly resolve: (answer: Answer | undefined) => void
}

const PAUSE_BASE_MS = 50
const PAUSE_CAP_MS = 2_000

/** Gathers requests of one kind; one flight at a time. */
export class Batcher<Request, Answer> {
  readonly #options: BatcherOptions<Request, Answer>
  readonly #givenUp = new AbortController()
  #waiting: Entry<Request, Answer>[] = []
  #flying = false

  constructor(options: BatcherOptions<Request, Answer>) {
    this.#options = options
  }

  /** Answers undefined when the batcher gave up before an answer came. */
  ask(request: Request): Promise<Answer | undefined> {
    if (this.#givenUp.signal.aborted) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      this.#waiting.push({ request, resolve })
      if (this.#flying) return
      this.#flying = true
      setImmediate(() => void this.#fly())
    })
  }

  /** Sends nothing more. Harmless when repeated. */
  giveUp(): void {
    this.#givenUp.abort()
  }

  async #fly(): Promise<void> {
    while (this.#waiting.length > 0) await this.#deliver(this.#waiting.splice(0, this.#options.maxBatch))
    this.#flying = false
  }

  async #deliver(batch: Entry<Request, Answer>[]): Promise<void> {
    const requests = batch.map((entry) => entry.request)
    const answers = await this.#answers(requests)
    for (const [i, entry] of batch.entries()) entry.resolve(answers?.[i])
  }

  async #answers(requests: Request[]): Promise<Answer[] | undefined> {
    const { send, ready, onFailure } = this.#options
    const { signal } = this.#givenUp
    for (let failures = 0; ; failures++) {
      await ready?.(signal)
      if (signal.aborted) return undefined
      try {
        const answers = await send(requests)
        if (answers.length === requests.length) return answers
        throw new Error(`expected ${requests.length} answers from the store, got ${answers.length}`)
      } catch (error) {
        onFailure(error as Error)
        await pause(
          Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** Math.min(failures, 16)) * (0.5 + Math.random() / 2),
          signal,
        )
      }
    }
  }
}

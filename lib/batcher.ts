/**
 * Gathers requests that are made together and sends them together: one flight at a time, everything that comes meanwhile goes with
 * the next. A flight that fails is repeated, after a growing pause, until it succeeds or all its requesters gave up.
 */
import { pause } from './deadline.ts'

export interface BatcherOptions<Request, Answer> {
  /** Sends requests; answers in the same order. Must be safe to repeat. */
  readonly send: (requests: Request[]) => Promise<Answer[]>
  readonly maxBatch: number
  readonly onFailure: (error: Error) => void
  readonly onSuccess: () => void
}

interface Entry<Request, Answer> {
  readonly request: Request
  readonly signal: AbortSignal
  readonly resolve: (answer: Answer | undefined) => void
}

const PAUSE_BASE_MS = 50
const PAUSE_CAP_MS = 2_000

export class Batcher<Request, Answer> {
  readonly #options: BatcherOptions<Request, Answer>
  #waiting: Entry<Request, Answer>[] = []
  #flying = false

  constructor(options: BatcherOptions<Request, Answer>) {
    this.#options = options
  }

  /** Answers undefined when `signal` fired before an answer came. */
  ask(request: Request, signal: AbortSignal): Promise<Answer | undefined> {
    return new Promise((resolve) => {
      this.#waiting.push({ request, signal, resolve })
      if (this.#flying) return
      this.#flying = true
      setImmediate(() => void this.#fly())
    })
  }

  async #fly(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#options.maxBatch)
      await this.#deliver(batch)
    }
    this.#flying = false
  }

  async #deliver(entries: Entry<Request, Answer>[]): Promise<void> {
    let batch = entries
    for (let failures = 0; ; failures++) {
      batch = batch.filter(stillWanted)
      if (batch.length === 0) return
      try {
        const answers = await this.#options.send(batch.map((entry) => entry.request))
        this.#options.onSuccess()
        batch.forEach((entry, i) => {
          entry.resolve(answers[i])
        })
        return
      } catch (error) {
        this.#options.onFailure(error as Error)
        await pause(Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** failures) * (0.5 + Math.random() / 2))
      }
    }
  }
}

/** One whose requester gave up is told so and leaves the batch. */
function stillWanted<Request, Answer>(entry: Entry<Request, Answer>): boolean {
  if (entry.signal.aborted) entry.resolve(undefined)
  return !entry.signal.aborted
}

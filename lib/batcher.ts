/**
 * Gathers requests that are made together and sends them together: one flight at a time, everything that comes meanwhile goes with
 * the next. A flight that fails is repeated, after a growing pause, until it succeeds or the batcher is told to give up.
 *
 *     waiting ──its turn──▶ in flight ──answered──▶ answer
 *        │                     └──failed──▶ waits for its turn again
 *        └──giveUp()──▶ undefined       (a flight that is under way is waited for: what it did must be known)
 *
 * Batchers that share their turns fly in turns: what one flight's answers cause gathers while another's flight is out, so that few
 * full flights go out instead of many small ones.
 *
 * Promises: every request is answered exactly once, in order of asking; after giveUp() within the time of the flights then due, one
 * of each that shares the turns.
 */
import { pause } from './deadline.ts'

/** How requests are sent and what is told of it. */
export interface BatcherOptions<Request, Answer> {
  /** Sends requests; answers in the same order. Must be safe to repeat, and must end, soon when the signal fires. */
  readonly send: (requests: readonly Request[], givenUp: AbortSignal) => Promise<Answer[]>
  readonly maxBatch: number
  readonly onFailure: (error: Error) => void
  /** Asked when it is this batcher's turn: undefined to fly now, else what to wait for before it takes another turn; ends early when the signal fires. */
  readonly ready?: (givenUp: AbortSignal) => Promise<void> | undefined
  /** Shared with other batchers; default: its own. */
  readonly turns?: Turns
}

type Answered<Answer> = (answer: Answer | undefined) => void

const PAUSE_BASE_MS = 50
const PAUSE_CAP_MS = 2_000

/** Who may fly: one at a time, first come, first served. */
export class Turns {
  readonly #waiting: (() => void)[] = []
  #taken = false

  /** Resolves when it is the caller's turn, and not before all that is ready to run now has run. */
  take(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#taken) this.#waiting.push(resolve)
      else setImmediate(resolve)
      this.#taken = true
    })
  }

  /** The caller's turn is over. */
  pass(): void {
    const next = this.#waiting.shift()
    if (next) setImmediate(next)
    else this.#taken = false
  }
}

/** Gathers requests of one kind; one flight at a time. */
export class Batcher<Request, Answer> {
  readonly #options: BatcherOptions<Request, Answer>
  readonly #turns: Turns
  readonly #givenUp = new AbortController()
  #waiting: Request[] = []
  /** Who waits for the answers, in the same order. */
  #answered: Answered<Answer>[] = []
  #flying = false

  constructor(options: BatcherOptions<Request, Answer>) {
    this.#options = options
    this.#turns = options.turns ?? new Turns()
  }

  /** Answers undefined when the batcher gave up before an answer came. */
  ask(request: Request): Promise<Answer | undefined> {
    return new Promise((resolve) => this.tell(request, resolve))
  }

  /** The same, for those who have more to do with the answer than to await it. `answered` must not throw. */
  tell(request: Request, answered: Answered<Answer>): void {
    if (this.#givenUp.signal.aborted) answered(undefined)
    else {
      this.#waiting.push(request)
      this.#answered.push(answered)
      if (!this.#flying) void this.#fly()
    }
  }

  /** Sends nothing more. Harmless when repeated. */
  giveUp(): void {
    this.#givenUp.abort()
  }

  async #fly(): Promise<void> {
    this.#flying = true
    while (this.#waiting.length > 0) await this.#deliver()
    this.#flying = false
  }

  async #deliver(): Promise<void> {
    const { signal } = this.#givenUp
    let batch: Request[] = []
    let answers: Answer[] | undefined
    for (let failures = 0; !answers; failures++) {
      if (failures > 0) await this.#rest(failures)
      await this.#turn(signal)
      if (failures === 0) batch = this.#waiting.splice(0, this.#options.maxBatch)
      if (!signal.aborted) answers = await this.#answers(batch)
      this.#turns.pass()
      if (signal.aborted) break
    }
    const answered = this.#answered.splice(0, batch.length)
    for (let i = 0; i < answered.length; i++) answered[i]!(answers?.[i])
  }

  async #turn(givenUp: AbortSignal): Promise<void> {
    for (;;) {
      await this.#turns.take()
      const wait = givenUp.aborted ? undefined : this.#options.ready?.(givenUp)
      if (!wait) return
      this.#turns.pass()
      await wait
    }
  }

  /** Undefined when the flight failed. The list sent is the sender's own: whose turn an answer is hangs on ours. */
  async #answers(batch: readonly Request[]): Promise<Answer[] | undefined> {
    const { send, onFailure } = this.#options
    try {
      const answers = await send(batch.slice(), this.#givenUp.signal)
      if (answers.length === batch.length) return answers
      throw new Error(`expected ${batch.length} answers from the store, got ${answers.length}`)
    } catch (error) {
      onFailure(error as Error)
      return undefined
    }
  }

  async #rest(failures: number): Promise<void> {
    const ceiling = Math.min(PAUSE_CAP_MS, PAUSE_BASE_MS * 2 ** Math.min(failures - 1, 16))
    await pause(ceiling * (0.5 + Math.random() / 2), this.#givenUp.signal)
  }
}

/**
 * The ends of many publishes, in the order in which they were asked for; without a promise for each.
 * Promises: `results()` resolves once every place that was given out has its end, and never rejects.
 */
import { PublishFailed } from '../errors.ts'
import type { Target } from './encode.ts'
import type { Asker, Receipt, SendOptions } from './publisher.ts'

/** The end of one message of a batch. */
export type PublishResult =
  | Receipt
  | {
      readonly outcome: PublishFailed['outcome']
      readonly messageId: string
      readonly transactionId: string
      readonly error: PublishFailed
    }

/** A `publishMany()` under way. */
export class Batch {
  readonly target: Target
  readonly send: SendOptions
  readonly #ends: (PublishResult | undefined)[] = []
  #open = 0
  #allEnded: (() => void) | undefined

  constructor(target: Target, send: SendOptions) {
    this.target = target
    this.send = send
  }

  /** For the next message: tell it how that ended. */
  place(): Asker {
    this.#open++
    return new Place(this, this.#ends.push(undefined) - 1)
  }

  end(index: number, result: PublishResult): void {
    this.#ends[index] = result
    this.#open--
    if (this.#open === 0) this.#allEnded?.()
  }

  /** To be called when no more messages come. */
  async results(): Promise<PublishResult[]> {
    if (this.#open > 0) await new Promise<void>((resolve) => (this.#allEnded = resolve))
    return this.#ends as PublishResult[]
  }
}

/** Where one message's end goes. */
class Place implements Asker {
  readonly #batch: Batch
  readonly #index: number

  constructor(batch: Batch, index: number) {
    this.#batch = batch
    this.#index = index
  }

  confirmed(receipt: Receipt): void {
    this.#batch.end(this.#index, receipt)
  }

  /** @throws what is no PublishFailed: the batch as a whole was asked for wrongly */
  failed(error: unknown): void {
    if (!(error instanceof PublishFailed)) throw error
    const { outcome, messageId, transactionId } = error
    this.#batch.end(this.#index, { outcome, messageId, transactionId, error })
  }
}

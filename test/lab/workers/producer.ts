// Publishes to the queue of the direct path. What is not confirmed is offered again with the same id until it is, or never again:
// then nothing but that one publish can have brought it, and whether it arrives says what its outcome was worth.

import { setTimeout as pause } from 'node:timers/promises'
import { connect, type Producer, PublishFailed } from '../../../lib/index.ts'
import type { LedgerWriter } from '../ledger/writer.ts'
import { monotonicNs, type Outcome } from '../ledger.ts'
import { type Job, REVIVED, type Work } from './job.ts'
import { type Offer, Supply } from './supply.ts'

const KEYS = 400
/** Shorter than most troubles, so that there are unknown outcomes. */
const DEADLINE_MS = 5_000
const AGAIN_AFTER_MS = 100
/** Of so many whose first publish was not confirmed, one is not offered again. */
const WITHDRAWN = 2

export async function produce(job: Job, ledger: LedgerWriter, accepted: () => void): Promise<Work> {
  const surehop = await connect({ amqp: job.amqp, service: job.names.service, reconnectCapMs: 1_000 })
  const producer = surehop.producer({ deadlineMs: DEADLINE_MS })
  const supply = new Supply(job, KEYS, accepted)
  const offer = new Offering(job, ledger, producer, supply)
  const running = supply.run((offers) => offer.take(offers))
  return {
    flow: (now) => supply.flow(now),
    enough: () => supply.enough(),
    async close() {
      supply.enough()
      await running
      await surehop.close()
    },
  }
}

class Offering {
  readonly #queue: string
  readonly #ledger: LedgerWriter
  readonly #producer: Producer
  readonly #supply: Supply

  constructor(job: Job, ledger: LedgerWriter, producer: Producer, supply: Supply) {
    this.#queue = job.names.direct
    this.#ledger = ledger
    this.#producer = producer
    this.#supply = supply
  }

  take(offers: readonly Offer[]): void {
    for (const offer of offers) this.#ledger.note({ is: 'offered', at: monotonicNs(), path: 'direct', ...offer })
    this.#ledger.flush()
    for (const offer of offers) void this.#untilConfirmed(offer)
  }

  async #untilConfirmed(offer: Offer): Promise<void> {
    let confirmed = await this.#publish(offer)
    if (!confirmed && this.#supply.random.between(1, WITHDRAWN) === 1) return this.#withdraw(offer)
    while (!confirmed) {
      await pause(AGAIN_AFTER_MS)
      confirmed = await this.#publish(offer)
    }
    this.#supply.done(offer, 'accepted')
  }

  #withdraw(offer: Offer): void {
    this.#ledger.note({ is: 'withdrawn', at: monotonicNs(), id: offer.id })
    this.#supply.done(offer, 'withdrawn')
  }

  async #publish({ id, key, n, fate }: Offer): Promise<boolean> {
    const type = fate === 'revived' ? REVIVED : 'lab.direct'
    const message = { messageId: id, key, type, body: { key, n, fate, text: 'x'.repeat(n % 200) } }
    const outcome = await this.#producer.send(this.#queue, message).then(() => 'confirmed' as const, outcomeOf)
    this.#ledger.note({ is: 'told', at: monotonicNs(), id, outcome })
    return outcome === 'confirmed'
  }
}

function outcomeOf(error: unknown): Exclude<Outcome, 'confirmed' | 'refused'> {
  if (error instanceof PublishFailed) return error.outcome
  throw error
}

// Processes that are ready to be told what they are, some in advance: half a second of start would be the better part of a life.

import { type Bundle, bundle } from '../../support/bundle.ts'
import { Life as AnyLife } from '../../support/life.ts'
import type { Order } from './place.ts'

const AHEAD = 3

/** One process of the scenario. */
export type Life = AnyLife<Order>

/** Bundles the child once. */
export async function openNursery(): Promise<Nursery> {
  return new Nursery(await bundle(new URL('./child.ts', import.meta.url)))
}

/** Gives processes that have loaded everything. */
export class Nursery {
  readonly #bundle: Bundle
  readonly #waiting: Life[] = []
  readonly #living = new Set<Life>()

  constructor(made: Bundle) {
    this.#bundle = made
  }

  take(): Life {
    while (this.#waiting.length <= AHEAD) this.#waiting.push(this.#start())
    return this.#waiting.shift()!
  }

  /** Ends all. */
  async close(): Promise<void> {
    await Promise.all([...this.#living].map((life) => life.kill9()))
    this.#bundle.close()
  }

  #start(): Life {
    const life: Life = new AnyLife(this.#bundle.of('child.ts'))
    this.#living.add(life)
    void life.ended.then(() => this.#living.delete(life))
    return life
  }
}

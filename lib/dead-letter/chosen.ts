/** Picks the letters that are meant out of a reader. A letter's story is read when somebody asks for it: to send it again needs none. */
import type { Taken } from './leg.ts'
import type { Reader } from './reader.ts'
import type { CompiledSelection } from './selection.ts'
import { type Letter, readLetter } from './story.ts'

/** A letter that was chosen. */
export class Chosen {
  readonly taken: Taken
  #letter: Letter | undefined

  constructor(taken: Taken) {
    this.taken = taken
  }

  get letter(): Letter {
    this.#letter ??= readLetter(this.taken.raw)
    return this.#letter
  }
}

/** The letters chosen so far, at most `max` at a time; none at the end. */
export type Take = (max: number) => Promise<readonly Chosen[]>

/** Up to the limit of the selection. */
export function chooser(reader: Reader, { matches, all, limit }: CompiledSelection): Take {
  let left = limit
  return async (max) => {
    while (left > 0) {
      const some = await reader.nextMany(Math.min(max, left))
      if (some.length === 0) return []
      const held = some.map((taken) => new Chosen(taken))
      const chosen = all ? held : held.filter(({ letter }) => matches(letter))
      left -= chosen.length
      if (chosen.length > 0) return chosen
    }
    return []
  }
}

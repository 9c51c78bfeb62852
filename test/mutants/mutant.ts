// A mutant: one fault, made by hand, that the tests must notice. Text for text, so that it says exactly what is wrong.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** One fault. */
export interface Mutant {
  readonly name: string
  /** Which promise it breaks. */
  readonly breaks: string
  /** From the root of the repository. */
  readonly file: string
  /** Stands there exactly once. */
  readonly from: string
  readonly to: string
  /** The smallest set of tests that must catch it. */
  readonly tests: {
    readonly files: readonly string[]
    /** Part of their full titles; one of them suffices. */
    readonly titled: readonly string[]
  }
}

/** Tests of one file, by parts of their titles. */
export function tests(file: string, ...titled: readonly string[]): Mutant['tests'] {
  return { files: [file], titled }
}

/**
 * The source with the fault in it.
 * @throws when the text is not there exactly once: the code has changed, and the fault must be made anew
 */
export function mutated(source: string, { name, file, from, to }: Mutant): string {
  const found = source.split(from).length - 1
  if (found === 1) return source.replace(from, () => to)
  throw new Error(
    `mutant "${name}": expected its text exactly once in ${file}, found it ${found} times. The code has changed: make the same fault anew, in test/mutants/. It looks for:\n${from}`,
  )
}

/** The file of a mutant with the fault in it. @throws as {@link mutated} */
export async function faulty(root: string, mutant: Mutant): Promise<string> {
  return mutated(await readFile(join(root, mutant.file), 'utf8'), mutant)
}

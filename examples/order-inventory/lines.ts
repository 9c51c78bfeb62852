/** Files of JSON lines that only grow. */
import { writeSync } from 'node:fs'

/** One line, one write. */
export function append(file: number, value: object): void {
  writeSync(file, `${JSON.stringify(value)}\n`)
}

/** The complete lines of a file; `bytes` is how long they are. What follows them was cut off by a crash. */
export function wholeLines<T>(content: Buffer): { readonly values: T[]; readonly bytes: number } {
  const bytes = content.lastIndexOf('\n') + 1
  const lines = content.subarray(0, bytes).toString('utf8').split('\n').slice(0, -1)
  return { values: lines.map((line) => JSON.parse(line) as T), bytes }
}

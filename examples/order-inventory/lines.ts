/** Files of JSON lines that only grow. */
import { ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'

/** Opens or creates one to append to, without the half line that a crash may have left: another would be written behind it. */
export function opened(path: string): number {
  const file = openSync(path, 'a+')
  const content = readFileSync(path)
  const { bytes } = wholeLines(content)
  if (bytes < content.length) ftruncateSync(file, bytes)
  return file
}

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

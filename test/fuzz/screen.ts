// What a terminal may be sent: checks the bytes that the command printed.

import { widthOf } from '../../bin/text.ts'

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const COLOURS = /\x1b\[\d+(?:;\d+)*m/g
/** Control characters but line feed, what turns the direction of reading, what is invisible, other line ends, half characters. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
export const OBEYED = /[\x00-\x09\x0b-\x1f\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u
/** Marks piled on one character paint over the lines above and below. */
const PILE = /\p{M}{9,}/u
/** A password that is in addresses which the fuzzer gives to the command, and in nothing it may print. */
export const PASSWORD = 'hunter2-must-not-show'

/** How it was printed. */
export interface Printed {
  readonly stdout: Buffer
  /** Every line is JSON. */
  readonly json?: boolean
  /** No line is wider. */
  readonly width?: number
  /** Texts that must not be in it; default: only the fuzzer's own password. */
  readonly secrets?: readonly string[]
}

/** What is wrong with it, or undefined. */
export function offence({ stdout, json, width, secrets = [PASSWORD] }: Printed): string | undefined {
  const text = decoded(stdout)
  if (text === undefined) return 'it is not UTF-8'
  if (secrets.some((secret) => text.includes(secret))) return 'it shows a password'
  const plain = text.replace(COLOURS, '')
  for (const line of plain.split('\n')) {
    const why = wrongWith(line, json === true, width)
    if (why) return `${why} in the line ${JSON.stringify(line.slice(0, 300))}`
  }
  return undefined
}

function wrongWith(line: string, json: boolean, width: number | undefined): string | undefined {
  const obeyed = OBEYED.exec(line)
  if (obeyed) return `U+${obeyed[0].codePointAt(0)!.toString(16)} at ${obeyed.index}`
  if (json) return line === '' || parses(line) ? undefined : 'no JSON'
  if (PILE.test(line)) return 'a pile of combining marks'
  return width !== undefined && widthOf(line) > width ? `${widthOf(line)} columns of ${width}` : undefined
}

function parses(line: string): boolean {
  try {
    JSON.parse(line)
    return true
  } catch {
    return false
  }
}

function decoded(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

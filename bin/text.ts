/**
 * Text that came over the wire, made fit for a terminal: nothing in a message may move the cursor, change colours, turn the
 * direction of reading, or pretend to be another line.
 */
import { stripVTControlCharacters } from 'node:util'

const CONTROL = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/gu
/** Invisible: bidirectional marks, zero widths, tags and other format characters. */
const FORMAT = /\p{Cf}|\u034f|\u115f|\u1160|\u17b4|\u17b5|\u3164|\uffa0/gu
/** Marks piled on one character: they paint over the lines above and below. No language needs so many. */
const PILE = /(\p{M}{4})\p{M}+/gu
/** Picture of each control character, U+2400 on. */
const PICTURES = 0x2400

/** One line, with visible pictures in place of control characters. */
export function safe(text: string): string {
  return stripVTControlCharacters(text).replace(CONTROL, picture).replace(FORMAT, '·').replace(PILE, '$1·')
}

/** Several lines: line feeds and tabs stay. */
export function safeLines(text: string): string {
  return text
    .replace(/\r\n/g, '\n')
    .split('\n')
    .map((line) => line.split('\t').map(safe).join('  '))
    .join('\n')
}

function picture(character: string): string {
  const code = character.codePointAt(0)!
  if (code < 0x20) return String.fromCodePoint(PICTURES + code)
  return code === 0x7f ? '␡' : '�'
}

const segments = new Intl.Segmenter('en', { granularity: 'grapheme' })
const NO_COLUMN = /[\p{Mn}\p{Me}]/u
/** Asks for a coloured picture in place of a sign: some terminals then take two columns. */
const AS_PICTURE = '\ufe0f'
/** East Asian Wide and Fullwidth of Unicode 16. A regional indicator takes one column, and two of them are a flag. */
const WIDE =
  /(?!\p{RI})\p{Emoji_Presentation}|[\u1100-\u115f\u2329\u232a\u2630-\u2637\u268a-\u268f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{16fe0}-\u{18dff}\u{1aff0}-\u{1b2ff}\u{1d300}-\u{1d37f}\u{1f200}-\u{1f2ff}\u{20000}-\u{3fffd}]/u

/**
 * The most columns a text takes on a terminal. By character, as terminals count, not by what is seen as one: there, a letter of
 * several parts (Devanagari, old Hangul, emoji) takes the columns of all.
 */
export function widthOf(text: string): number {
  let width = 0
  for (const character of text)
    if (character === AS_PICTURE) width++
    else if (!NO_COLUMN.test(character)) width += WIDE.test(character) ? 2 : 1
  return width
}

/** At most `width` columns, with an ellipsis where something was cut. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  let out = ''
  let used = 0
  for (const { segment } of segments.segment(text)) {
    used += widthOf(segment)
    if (used > width - 1) break
    out += segment
  }
  return `${out}…`
}

/** With spaces, so that it takes `width` columns. */
export function padded(text: string, width: number, right = false): string {
  const spaces = ' '.repeat(Math.max(0, width - widthOf(text)))
  return right ? spaces + text : text + spaces
}

/** `3 letters`, `1 letter`. */
export function plural(count: number, word: string): string {
  return `${count.toLocaleString('en-US')} ${word}${count === 1 ? '' : 's'}`
}

/**
 * A password may hold anything, also what should have been percent-encoded: it ends at the last "@" of the line before another
 * address. Rather too much is left out than a part of it shown.
 */
const IN_ADDRESS = /\b([a-z][a-z0-9+.-]*:\/\/[^\s:]*):(?:(?![\s,;'"(](?:amqps?|rediss?|postgres(?:ql)?):\/\/).)*@/gi
const IN_QUERY = /([?&](?:ssl)?password=)[^&\s]*/gi

/** A password in a URL is nobody's business. */
export function redacted(text: string): string {
  return text.replace(IN_ADDRESS, '$1:***@').replace(IN_QUERY, '$1***')
}

/** How old, in one unit: `12 s`, `5 min`, `3 h`, `2 d`. */
export function age(date: Date | undefined, now = Date.now()): string {
  if (!date || Number.isNaN(date.getTime())) return '?'
  const seconds = Math.round((now - date.getTime()) / 1_000)
  if (seconds < 0) return 'in future'
  return duration(seconds)
}

/** Seconds in one unit. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`
  if (seconds < 3_600) return `${Math.round(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.round(seconds / 3_600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/** The value of a header on one line. */
export function headerText(value: unknown): string {
  return typeof value === 'string' || typeof value === 'bigint'
    ? String(value)
    : (JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? String(v) : v)) ?? '')
}

/** Several lines, moved in. */
export function indented(text: string): string {
  return safeLines(text)
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n')
}

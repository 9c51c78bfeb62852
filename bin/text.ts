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
const WIDE =
  /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u

/** Columns a text takes on a terminal. */
export function widthOf(text: string): number {
  let width = 0
  for (const { segment } of segments.segment(text)) width += WIDE.test(segment) ? 2 : 1
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

/** `3 letters`, `1 letter`. */
export function plural(count: number, word: string): string {
  return `${count.toLocaleString('en-US')} ${word}${count === 1 ? '' : 's'}`
}

/** A password in a URL is nobody's business. */
export function redacted(text: string): string {
  return text.replace(/\b([a-z][a-z0-9+.-]*:\/\/[^\s/:@]*):[^\s/]*@/gi, '$1:***@')
}

/** How old, in one unit: `12 s`, `5 min`, `3 h`, `2 d`. */
export function age(date: Date | undefined, now = Date.now()): string {
  if (!date) return '?'
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

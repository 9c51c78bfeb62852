/** Bodies for people: text where they are text, JSON spread over lines where that changes nothing but spaces. Pure. */

/** The text of UTF-8 bytes, or undefined. */
export function utf8(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return undefined
  }
}

/** JSON over several lines; undefined for other text, for JSON that JavaScript would change (large numbers, repeated names), and for hundreds of levels. */
export function jsonText(text: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text)
    if (isDeep(value)) return undefined
    return JSON.stringify(value) === withoutSpaces(text) ? JSON.stringify(value, null, 2) : undefined
  } catch {
    return undefined
  }
}

/** JSON without the spaces between its tokens. */
export function withoutSpaces(json: string): string {
  return json.replace(/("(?:[^"\\]|\\.)*")|\s+/g, '$1')
}

/** No number of this JSON is beyond what JavaScript can tell apart. */
export function keepsNumbers(json: string): boolean {
  const numbers = json.replace(/"(?:[^"\\]|\\.)*"/g, '').match(/\d[\d.]*(?:e[+-]?\d+)?/gi) ?? []
  return numbers.every(
    (text) => text.replace(/e.*/i, '').replace('.', '').length <= SAFE_DIGITS && Number.isFinite(Number(text)),
  )
}

/** Any number of so many decimal digits comes back as it was. */
const SAFE_DIGITS = 15

/**
 * The value with one part set, e.g. `lines.0.sku`; missing objects are made on the way.
 * @throws RangeError where the path leads through something that is no object
 */
export function withPart(value: unknown, path: string, part: unknown): unknown {
  const [name = '', ...rest] = path.split('.')
  if (typeof value !== 'object' || value === null)
    throw new RangeError(`"${name}" would be inside ${JSON.stringify(value)}`)
  if (name === '__proto__') throw new RangeError('"__proto__" is no name for a part')
  const copy: Record<string, unknown> = Array.isArray(value) ? ([...value] as never) : { ...value }
  if (Array.isArray(value) && !/^\d+$/.test(name)) throw new RangeError(`"${name}" is no position in a list`)
  copy[name] = rest.length === 0 ? part : withPart(copy[name] ?? {}, rest.join('.'), part)
  return copy
}

/** For people: JSON spread, text as it is, the beginning of anything else in hexadecimal. */
export function bodyText(body: Buffer): string {
  const text = utf8(body)
  if (text === undefined)
    return `${body
      .subarray(0, 512)
      .toString('hex')
      .replace(/(.{2})/g, '$1 ')}${body.length > 512 ? '…' : ''}`
  return jsonText(text) ?? text
}

/** For programs: the parsed JSON, else the text, else base64. JSON that can be read but is nested too deep to be written is text. */
export function bodyJson(body: Buffer): object {
  const text = utf8(body)
  if (text === undefined) return { body: undefined, bodyBase64: body.toString('base64') }
  try {
    const value: unknown = JSON.parse(text)
    if (!isDeep(value)) return { body: value }
  } catch {
    // It is text, then.
  }
  return { body: undefined, bodyText: text }
}

/** `JSON.parse` knows no end; `JSON.stringify` has no stack for some thousands of levels, and spread over lines each is moved in further. */
const MAX_DEPTH = 100

/** Level by level, without recursion. */
function isDeep(value: unknown): boolean {
  let level = [value].filter(isObject)
  for (let depth = 0; depth < MAX_DEPTH && level.length > 0; depth++)
    level = level.flatMap((item) => Object.values(item)).filter(isObject)
  return level.length > 0
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

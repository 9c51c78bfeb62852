// Half messages as anybody with a connection could forge them: arbitraries of their heads, bodies, lengths and properties.

import fc from 'fast-check'
import { json, mostly, object, packedProperties, SANE, text } from './rows.ts'
import { nastyTexts, properties } from './specimens.ts'
import type { Properties } from './wire.ts'

/** What the service's check says of it. */
export type Answer = 'commit' | 'rollback' | 'unknown'

/** One half message, before it is given its marker and its target. */
export interface Half {
  /** Which of the sender's queues it is put into. */
  readonly into: 'half' | 'half.check' | 'half.parked'
  readonly answer: Answer
  readonly properties: Properties
  /** An operator's verdict, forged. */
  readonly verdict: Answer | 'check' | undefined
  readonly content: Content
}

/** Bytes, or a head and bodies whose lengths may lie. */
export type Content = Buffer | { readonly head: Head; readonly lie: number; readonly behind: Buffer }

interface Head {
  /** JSON; null: the marker. */
  readonly transactionId: string | null
  readonly fields: readonly (readonly [string, string])[]
  readonly items: string | readonly Item[]
}

interface Item {
  readonly fields: readonly (readonly [string, string])[]
  readonly target: 'queue' | 'missing'
  readonly properties: string
  readonly body: Buffer
}

const quoted = (value: string) => JSON.stringify(value)
const anything = fc.oneof(json, text.map(quoted))
/** Nothing is changed, or one field is another. */
const changed = (...names: readonly string[]) =>
  mostly(
    fc.constant([]),
    fc.array(fc.tuple(fc.constantFrom(...names, '__proto__', 'toString'), anything), { maxLength: 2 }),
    10,
  )

const item: fc.Arbitrary<Item> = fc.record({
  fields: changed('id', 'exchange', 'routingKey', 'key', 'delayMs', 'properties', 'bytes'),
  target: mostly(fc.constant('queue'), fc.constant('missing'), 30),
  properties: mostly(fc.constant(SANE), packedProperties, 6),
  body: fc.oneof(
    fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(...nastyTexts).map((bytes) => Buffer.from(bytes)),
  ),
})

const structured = fc.record({
  head: fc.record({
    transactionId: mostly(fc.constant(null), anything),
    fields: changed('v', 'preparedAt', 'service', 'transactionId'),
    items: mostly(fc.array(item, { minLength: 1, maxLength: 3 }), json),
  }),
  lie: mostly(fc.constant(0), fc.constantFrom(1, -1, 2 ** 31, 1_000, -4), 20),
  behind: mostly(fc.constant(Buffer.alloc(0)), fc.constantFrom(Buffer.from('more'), Buffer.alloc(70_000)), 20),
})

const content: fc.Arbitrary<Content> = mostly(
  structured,
  fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc.constantFrom(Buffer.alloc(0), Buffer.from([0, 0, 0, 4, ...Buffer.from('null')]), Buffer.alloc(4, 0xff)),
  ),
  15,
)

/** Any half message. */
export const halves: fc.Arbitrary<Half> = fc.record({
  into: fc.constantFrom('half', 'half', 'half.check', 'half.check', 'half.parked'),
  answer: fc.constantFrom('commit', 'commit', 'commit', 'rollback', 'unknown'),
  properties,
  verdict: mostly(fc.constant(undefined), fc.constantFrom('commit', 'rollback', 'unknown', 'check'), 10),
  content,
})

/** The bytes of a half message, with its transaction id and its targets in it. */
export function contentOf(half: Half, marker: string, targets: { readonly queue: string; readonly missing: string }) {
  if (Buffer.isBuffer(half.content)) return half.content
  const { head, lie, behind } = half.content
  const items = typeof head.items === 'string' ? [] : head.items
  const bodies = items.map(({ body }) => Buffer.concat([body, Buffer.from(`\0${marker}`)]))
  const told = items.map((it, i) => itemText(it, bodies[i]!.length, `${marker}:${i}`, targets[it.target]))
  const messages = typeof head.items === 'string' ? head.items : `[${told.join()}]`
  const transactionId = head.transactionId === null ? quoted(marker) : distinct(head.transactionId, marker)
  const sane = { v: '1', transactionId, preparedAt: String(Date.now()), service: '"fuzz"', messages }
  const fields = head.fields.map(([name, value]) => [name, distinct(value, marker)] as const)
  const json = Buffer.from(changedObject(sane, fields))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(Math.max(0, json.length + lie))
  return Buffer.concat([length, json, ...bodies, behind])
}

/** An id that two of them had would have one decision. */
function distinct(json: string, marker: string): string {
  const text = /^".+"$/su.test(json) ? (JSON.parse(json) as string) : ''
  return text === '' ? json : quoted(text + marker)
}

function itemText({ fields, properties }: Item, bytes: number, id: string, queue: string): string {
  const own = quoted(properties.replace('"of-the-row"', quoted(id)))
  const sane = { id: quoted(id), exchange: '""', routingKey: quoted(queue), properties: own, bytes: String(bytes) }
  return changedObject(sane, fields)
}

/** A name given twice counts as it was given last. */
function changedObject(sane: object, fields: readonly (readonly [string, string])[]): string {
  return object([...Object.entries(sane), ...fields])
}

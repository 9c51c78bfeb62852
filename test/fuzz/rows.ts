// Rows of an outbox as nobody should write them: arbitraries of every column, as texts that Postgres casts.
//
// Left out: what Postgres itself refuses (NUL, half characters, shards of more than 16 bits), and positions that the sequence is still
// to give, since those keep other writers from writing at all.

import fc from 'fast-check'
import { nastyTexts } from './specimens.ts'

/** The columns of a row, before it is given its marker and its target; null: what the column's default says. */
export interface Row {
  readonly position: string | null
  readonly shard: number
  readonly state: 'ready' | 'held' | 'parked'
  readonly placed: boolean
  readonly xid: string | null
  readonly message_id: string
  readonly transaction_id: string
  readonly key: string | null
  /** `queue`: there is one. */
  readonly target: 'queue' | 'missing queue' | 'missing exchange' | 'unbound' | 'default' | { readonly name: string }
  readonly properties: string
  readonly body: Buffer
  readonly deliver_at: string | null
  readonly created_at: string | null
  readonly attempts: number
  readonly not_before: string | null
  readonly last_error: string | null
  readonly ended_at: string | null
}

const storable = nastyTexts.filter((text) => !text.includes('\0') && text.isWellFormed())
const LONG = ['x'.repeat(256), '漢'.repeat(100), 'y'.repeat(100_000)]
/** Nothing that an index could compress. */
const dense = fc.base64String({ minLength: 4_000, maxLength: 4_000 })

/** What Postgres can store. */
export const text = fc.oneof(
  fc.constantFrom(...storable, ...LONG),
  fc.string({ maxLength: 40, unit: 'grapheme' }).map(clean),
)

/** A sane value, and one time in so many a hostile one. */
export function mostly<T, H>(sane: fc.Arbitrary<T>, hostile: fc.Arbitrary<H>, oneIn = 12): fc.Arbitrary<T | H> {
  return fc.oneof({ weight: oneIn - 1, arbitrary: sane }, { weight: 1, arbitrary: hostile })
}

const TIMES = ['infinity', '-infinity', '4713-01-01 BC', '294276-12-31 23:59:59', '275760-09-14', 'epoch', '0001-01-01']
const time = mostly(fc.constant(null), fc.constantFrom(...TIMES))

const POSITIONS = [0n, -1n, -(2n ** 63n), 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 2n, 2n ** 63n - 1n]
const INTEGERS = [-1, -(2 ** 31), 2 ** 31 - 1, 2 ** 31 - 2, 5]

/** JSON, which `JSON.stringify` could not write all of. */
export const json = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }).map((value) => clean(JSON.stringify(value))),
  text.map((value) => JSON.stringify(value)),
  fc.constantFrom(
    ...['1e999', '-1e999', '1e300', '-1', '0.5', '9007199254740993', '18446744073709551616', '"\\ud800"', '"a\\u0000"'],
    ...[
      '"double"',
      '"float"',
      '"int64"',
      '"integer"',
      '"bytes"',
      '"fields"',
      '"timestamp"',
      '"decimal"',
      '"?"',
    ].flatMap((type) =>
      ['"x"', '5', '-1', '1e999', 'null', '[[5,6]]', '[]'].map((value) => `{"!":${type},"value":${value}}`),
    ),
    ...[40, 2_000, 20_000].flatMap((levels) => [nested('[', ']', levels), nested('{"a":', '}', levels, '1')]),
  ),
)

const NAMES = [
  'transaction_id',
  'surehop-key',
  'surehop-publish-id',
  'surehop-priority',
  'x-death',
  'CC',
  'BCC',
  '__proto__',
  '!',
  'a',
]
const headers = fc.array(fc.tuple(mostly(fc.constantFrom(...NAMES), text, 4), json), { maxLength: 4 }).map(object)

const PROPERTIES = [
  ...['messageId', 'type', 'timestamp', 'appId', 'contentType', 'contentEncoding', 'correlationId', 'replyTo'],
  ...['priority', 'expiration', 'userId', 'clusterId', 'deliveryMode', 'mandatory', 'CC', '__proto__', 'toString'],
]
/** Fit to be sent. */
export const SANE = '{"messageId":"of-the-row","headers":{"transaction_id":"t"}}'

/** Packed properties and headers; `of-the-row` stands for the id of the message. */
export const packedProperties = fc.oneof(
  { weight: 24, arbitrary: fc.constant(SANE) },
  { weight: 4, arbitrary: headers.map((own) => `{"headers":${own}}`) },
  {
    weight: 4,
    arbitrary: fc
      .array(fc.tuple(fc.constantFrom(...PROPERTIES), json), { maxLength: 3 })
      .map((own) => object([['headers', '{}'], ...own])),
  },
  { weight: 1, arbitrary: json.map((own) => `{"headers":${own}}`) },
  { weight: 1, arbitrary: json },
  { weight: 1, arbitrary: text },
)

const body = fc.oneof(
  { weight: 12, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  { weight: 6, arbitrary: fc.constantFrom(...nastyTexts).map((bytes) => Buffer.from(bytes)) },
  { weight: 1, arbitrary: fc.constantFrom(65_536, 1_048_576).map((length) => Buffer.alloc(length, '"')) },
)

/** Any row. */
export const rows: fc.Arbitrary<Row> = fc.record({
  position: mostly(fc.constant(null), fc.constantFrom(...POSITIONS.map(String))),
  shard: mostly(fc.nat(63), fc.constantFrom(-1, 64, 32_767, -32_768)),
  state: mostly(fc.constant('ready' as const), fc.constantFrom('held' as const, 'parked' as const), 6),
  placed: fc.boolean(),
  xid: mostly(fc.constant(null), fc.constantFrom('0', '3', '18446744073709551615')),
  message_id: mostly(fc.uuid(), text),
  transaction_id: mostly(fc.uuid(), text),
  key: fc.oneof(
    { weight: 6, arbitrary: fc.constant(null) },
    { weight: 4, arbitrary: fc.constantFrom('a', 'b', 'c', '') },
    { weight: 2, arbitrary: text },
    { weight: 1, arbitrary: dense },
  ),
  target: mostly(
    fc.constant('queue' as const),
    fc.oneof(
      fc.constantFrom('missing queue', 'missing exchange', 'unbound', 'default'),
      text.map((name) => ({ name })),
    ) as fc.Arbitrary<Row['target']>,
    8,
  ),
  properties: packedProperties,
  body,
  deliver_at: mostly(fc.constant(null), fc.constantFrom(...TIMES, 'now', '2100-01-01')),
  created_at: time,
  attempts: mostly(fc.constant(0), fc.constantFrom(...INTEGERS)),
  not_before: time,
  last_error: mostly(fc.constant(null), text),
  ended_at: time,
})

function clean(value: string): string {
  return value.replace(/[\0\p{Surrogate}]/gu, '').replace(/\\u0000|\\ud[89a-f]../gi, '')
}

/** JSON of an object, names given twice included. */
export function object(entries: readonly (readonly [string, string])[]): string {
  return `{${entries.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join()}}`
}

function nested(open: string, close: string, levels: number, inside = ''): string {
  return open.repeat(levels) + inside + close.repeat(levels)
}

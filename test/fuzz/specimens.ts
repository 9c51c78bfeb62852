// Messages as nobody should send them: arbitraries of every property, every header type, our own headers forged, and bodies.
//
// Left out, since the broker itself refuses them by closing the publisher's channel or connection (RabbitMQ 3.10, measured), so that
// no consumer ever sees one: NaN and infinite numbers, lengths in a table that do not fit, types it does not know (541); delivery
// modes other than 1 and 2, an expiration that is no whole number, a foreign user_id, CC and BCC that are no list,
// reply_to "amq.rabbitmq.reply-to" without its consumer (406).
//
// Left out, too: a forged x-death. A list of anything but tables brings RabbitMQ 3.10 down, the whole node, as soon as the broker
// itself dead-letters the message (measured); a consumer of ours strips it from all that it sends on.

import fc from 'fast-check'
import type { Field, Properties, Table } from './wire.ts'

/** What its handler does with it. */
export type Fate = 'succeeds' | 'fails once' | 'fails' | 'is hopeless'

/** One message, before it is given its marker and its queue. */
export interface Specimen {
  /** Which of the consumers gets it. */
  readonly queue: number
  readonly fate: Fate
  /** Where the marker goes by which it is known again. */
  readonly marker: 'header' | 'app_id'
  /** `none`, or an id of its own, or one of a few that others have too. */
  readonly identity: 'none' | 'own' | 'shared' | 'hostile'
  readonly properties: Properties
  readonly body: Buffer
}

const bytes = (text: string) => Buffer.from(text)

/** What breaks terminals, parsers, keys and queries. */
const NASTY = [
  '',
  '\x1b[31mred\x1b[0m',
  '\x1b]0;title\x07',
  '\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\',
  '\x1bP1$r\x1b\\',
  '\x1b[2J\x1b[H',
  '\u009b31m',
  '\u009d0;x\u009c',
  '\r\nINJECTED',
  '\u2028\u2029\u0085',
  '\0',
  'a\0b',
  '\u202egnp.exe',
  '\u2066\u2069\u200f\u061c',
  '\u200b\u200d\ufeff\u{e0001}\u{e007f}',
  '👩‍👩‍👧‍👦🏳️‍🌈',
  `z${'\u0301\u0489'.repeat(60)}`,
  '\ufffd\uffff',
  '__proto__',
  'constructor',
  'toString',
  "'; DROP TABLE inbox; --",
  '{braces}{}',
  '%s%n%d',
  '-Infinity',
  'NaN',
  '1e999',
  'sha256:00',
  'hash:00',
  'amqp://user:secret@host/',
  '漢字'.repeat(40),
].map(bytes)

const short = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...NASTY).map((b) => b.subarray(0, 255)) },
  { weight: 2, arbitrary: fc.string({ maxLength: 40, unit: 'grapheme' }).map((s) => bytes(s).subarray(0, 255)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 255 }).map((b) => Buffer.from(b)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(Buffer.alloc(255, 0xff), Buffer.alloc(255, 'x'), Buffer.from([0xed, 0xa0, 0x80])),
  },
)

const INTEGERS = [0n, 1n, -1n, 2n ** 31n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 64n - 1n, 1_700_000_000n]
const whole = fc.oneof(fc.constantFrom(...INTEGERS), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }))
const real = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-1e300, 5e-324, -0, 1.5, 2 ** 60),
)

const long = fc.oneof(
  { weight: 30, arbitrary: short },
  { weight: 1, arbitrary: fc.nat(128_000).map((n) => Buffer.alloc(n, 'y')) },
)

const leaf: fc.Arbitrary<Field> = fc.oneof(
  fc.record({ t: fc.constantFrom('S' as const, 'x' as const), v: long }),
  fc.record({ t: fc.constantFrom('t', 'b', 'B', 's', 'u', 'I', 'i', 'l', 'L', 'T') as fc.Arbitrary<'t'>, v: whole }),
  fc.record({ t: fc.constant('d' as const), v: real }),
  fc.record({ t: fc.constant('f' as const), v: fc.float({ noNaN: true, noDefaultInfinity: true }) }),
  fc.record({ t: fc.constant('D' as const), places: fc.nat(255), digits: fc.nat(2 ** 32 - 1) }),
  fc.constant({ t: 'V' as const }),
)

/** Tables that amqplib would take for a value with its type told. */
const typed: fc.Arbitrary<Field> = fc
  .tuple(
    fc.constantFrom('double', 'float', 'timestamp', 'int64', 'decimal', 'string', 'object', 'bytes', 'fields'),
    leaf,
  )
  .map(([type, value]) => table([pair('!', { t: 'S', v: bytes(type) }), pair('value', value)]))

// The broker takes seconds for thousands of levels, so the deepest are rare.
const deep: fc.Arbitrary<Field> = fc
  .tuple(
    fc.constantFrom('A' as const, 'F' as const),
    fc.oneof(
      { weight: 150, arbitrary: fc.integer({ min: 1, max: 400 }) },
      { weight: 1, arbitrary: fc.constant(5_000) },
    ),
  )
  .map(([of, levels]) => ({ t: 'deep', of, levels }))

const { field } = fc.letrec<{ field: Field }>((tie) => ({
  field: fc.oneof(
    { maxDepth: 6, depthSize: 'small', withCrossShrink: true },
    { weight: 12, arbitrary: leaf },
    { weight: 1, arbitrary: typed },
    { weight: 1, arbitrary: deep },
    { weight: 2, arbitrary: fc.array(tie('field'), { maxLength: 5 }).map((v): Field => ({ t: 'A', v })) },
    { weight: 2, arbitrary: fc.array(fc.tuple(short, tie('field')), { maxLength: 5 }).map((v) => table(v)) },
  ),
}))

const OURS = [
  'key',
  'attempt',
  'generation',
  'exchange',
  'routing-key',
  'first-failed-at',
  'last-failed-at',
  'reason',
  'error-type',
  'error-message',
  'error-fingerprint',
  'error-stack',
  'queue',
  'service',
  'host',
  'dead-at',
  'edited-from',
  'discarded-at',
  'derived',
  'deliver-to',
  'verdict',
  'publish-id',
  'priority',
  'unreadable',
  'delay-00',
  'delay-27',
].map((name) => `surehop-${name}`)
const THEIRS = [
  'x-delivery-count',
  'x-acquired-count',
  'x-first-death-queue',
  'x-last-death-reason',
  'x-opt-delivery-count',
  'x-match',
  'x-delay',
]
const PLAIN = ['transaction_id', 'traceparent', 'tracestate', '__proto__', 'constructor', 'toJSON', '!', 'then', 'a']

const forged = fc.tuple(fc.constantFrom(...OURS, ...THEIRS, ...PLAIN).map(bytes), field)
/** CC must be a list of texts, or the broker refuses it. */
const copies = fc.tuple(
  fc.constantFrom('CC', 'BCC').map(bytes),
  fc.array(short, { maxLength: 3 }).map((v): Field => ({ t: 'A', v: v.map((s) => ({ t: 'S', v: s })) })),
)

const headers: fc.Arbitrary<Table> = fc
  .array(
    fc.oneof(
      { weight: 4, arbitrary: fc.tuple(short, field) },
      { weight: 3, arbitrary: forged },
      { weight: 1, arbitrary: copies },
    ),
    { maxLength: 6 },
  )
  .map((fields) => fields.filter(([name, value]) => value.t === 'A' || !/^B?CC$/.test(name.toString('latin1'))))

/** Of a message of any kind. */
export const properties: fc.Arbitrary<Properties> = fc.record(
  {
    contentType: fc.oneof(
      short,
      fc.constantFrom('application/json', 'text/plain', 'application/octet-stream').map(bytes),
    ),
    contentEncoding: fc.oneof(short, fc.constantFrom('gzip', 'utf-8', 'identity').map(bytes)),
    headers,
    deliveryMode: fc.constantFrom(1, 2),
    priority: fc.nat(255),
    correlationId: short,
    replyTo: short.filter((b) => b.toString('latin1') !== 'amq.rabbitmq.reply-to'),
    expiration: fc.constantFrom('86400000', '4000000000').map(bytes),
    timestamp: whole,
    type: short,
    userId: fc.constant(bytes('guest')),
    appId: short,
    clusterId: short,
  },
  { requiredKeys: [] },
)

const DEEP_JSON = '['.repeat(100_000) + ']'.repeat(100_000)
/** The large ones seldom: each costs as much as a hundred others. */
const body: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 120, arbitrary: fc.json().map(bytes) },
  {
    weight: 60,
    arbitrary: fc.record({ sku: fc.string(), quantity: fc.integer() }).map((v) => bytes(JSON.stringify(v))),
  },
  { weight: 40, arbitrary: fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)) },
  { weight: 40, arbitrary: fc.constantFrom(...NASTY) },
  {
    weight: 40,
    arbitrary: fc.constantFrom(
      ...[
        '{"__proto__":{"sku":"x"}}',
        '{"constructor":1}',
        '1e999',
        '-0',
        '123456789012345678901234567890',
        '{"a":1,"a":2}',
        '"\\ud800"',
        '[',
        'nul',
        '\ufeff{}',
        'null',
      ].map(bytes),
      Buffer.from('{"sku":"\xff"}', 'latin1'),
    ),
  },
  { weight: 1, arbitrary: fc.constant(bytes(DEEP_JSON)) },
  { weight: 1, arbitrary: fc.constantFrom(65_536, 1_048_576).map((n) => Buffer.alloc(n, '"')) },
)

/** A message for one of so many queues. */
export function specimens(queues: number): fc.Arbitrary<Specimen> {
  return fc.record({
    queue: fc.nat(queues - 1),
    fate: fc.constantFrom<Fate>(
      'succeeds',
      'succeeds',
      'succeeds',
      'succeeds',
      'succeeds',
      'fails once',
      'fails',
      'is hopeless',
    ),
    marker: fc.constantFrom('header', 'app_id'),
    identity: fc.constantFrom('none', 'own', 'own', 'own', 'shared', 'hostile'),
    properties,
    body,
  })
}

/** Texts for errors, types and names that a handler or a publisher of ours may have from anywhere. */
export const nastyTexts: readonly string[] = NASTY.map((b) => b.toString())

function pair(name: string, value: Field): readonly [Buffer, Field] {
  return [bytes(name), value]
}

function table(v: Table): Field {
  return { t: 'F', v }
}

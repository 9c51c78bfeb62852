// Rows that were written by hand, or in another language: what the broker closes the channel or the connection over.

import { expect } from 'chai'
import { fixed } from '../../lib/backoff.ts'
import { MessageInvalid } from '../../lib/errors.ts'
import { OutboxDesk } from '../../lib/outbox/desk.ts'
import { eventually } from '../support/eventually.ts'
import { Relaying } from './relaying.ts'

/** As JSON, which is how such a row says it. */
const HOSTILE: Readonly<Record<string, string>> = {
  replyTo: '{"headers":{},"replyTo":"amq.rabbitmq.reply-to"}',
  'header "n"': '{"headers":{"n":1e999}}',
  'header "deep"': '{"headers":{"deep":{"list":[1,{"n":-1e999}]}}}',
  'header "typed"': '{"headers":{"typed":{"!":"double","value":"none"}}}',
  'header "small"': '{"headers":{"small":{"!":"float","value":1e300}}}',
}

describe('a row that the broker closes the channel or the connection over', function () {
  this.timeout(120_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  it('is parked with a reason that names the field, and the connection and its neighbours go on as if it were not there', async () => {
    const queue = await r.queue()
    const arrivals = await r.arrivals(queue)
    const names = Object.keys(HOSTILE)
    const ids = await r.add(...Array.from({ length: 40 }, (_, body) => ({ queue, key: `k${body}`, body })))
    for (const [i, name] of names.entries())
      await r.sql('UPDATE {schema}.outbox SET properties = $1 WHERE message_id = $2', [HOSTILE[name], ids[4 * i]])
    const lost = r.record('connection.state')
    const resent = r.record('publish.resent')
    await r.relay({ pollMs: 20, attempts: 2, backoff: fixed({ delayMs: 10 }) })
    await arrivals.count(ids.length - names.length)
    await eventually(async () => expect(await r.states()).deep.equal(names.map(() => 'parked')), { withinMs: 20_000 })
    const desk = new OutboxDesk({ pool: r.pool, schema: r.schema.name })
    const errors: string[] = []
    for await (const { lastError } of desk.list({ state: 'parked' })) errors.push(String(lastError))
    for (const [i, name] of names.entries()) expect(errors[i]).contain(`expected ${name} to be`)
    expect(lost.filter(({ from }) => from === 'open').map(({ error }) => error?.message)).deep.equal([])
    expect(resent).empty
  })

  it('is not written in the first place', async () => {
    const messages = [{ replyTo: 'amq.rabbitmq.reply-to' }, { headers: { n: { '!': 'double', value: 'none' } } }]
    for (const message of messages) {
      const error = await r.add({ queue: 'any', body: 1, ...message }).catch((e: unknown) => e)
      expect(error).instanceOf(MessageInvalid)
      expect((error as MessageInvalid).path).match(/replyTo$|headers\.n$/)
    }
  })
})

describe('a row with headers that are odd, and fit', function () {
  this.timeout(120_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  it('is sent as it is: lists of copies with holes, numbers between and below the integers of 64 bits', async () => {
    const [queue, copies] = [await r.queue(), await r.queue()]
    const [arrivals, copied] = [await r.arrivals(queue), await r.arrivals(copies)]
    const headers = { CC: [copies, null, 5], micros: 1.7e15 + 0.25, deep: [{ low: -1e300 }], least: -(2 ** 63) }
    await r.add({ queue, headers, body: 1 })
    await r.relay({ pollMs: 20, attempts: 1 })
    for (const taken of [arrivals, copied]) {
      await taken.count(1)
      expect(taken.all[0]!.message.properties.headers).deep.include(headers)
    }
  })

  it('is refused before it is written where the broker would close the channel over it', async () => {
    const error = await r.add({ queue: 'any', body: 1, headers: { CC: 'a' } }).catch((e: unknown) => e)
    expect((error as MessageInvalid).path).equal('headers.CC')
  })
})

/** What is set of a row by hand, and what its error says then. A key is one that no index can take. */
const BY_HAND: readonly (readonly [set: string, says: string])[] = [
  ['shard = 64', 'expected shard to be from 0 to 63, got 64'],
  ['shard = -1, key = NULL', 'expected shard to be from 0 to 63, got -1'],
  ['position = 9223372036854775807', 'expected position to be from 1 to'],
  ['position = 9007199254740993', 'expected position to be from 1 to'],
  ['position = 0', 'expected position to be from 1 to'],
  ["state = 'held', not_before = '294276-01-01'", 'expected not_before to be within a year'],
  ["deliver_at = 'infinity'", 'expected deliver_at to be'],
  ["deliver_at = '2500-01-01'", 'expected deliver_at to be'],
  ["message_id = repeat('x', 300)", 'expected message_id to be'],
  ["exchange = repeat('x', 100000)", 'expected exchange to be'],
  ["exchange = repeat('漢', 85)", 'expected exchange to be at most 150 bytes'],
  ["exchange = repeat('é', 75)", 'does not exist'],
  ["key = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)", 'expected key to be'],
  ["properties = 'null'", 'expected properties to be'],
  ["properties = '{'", 'expected properties to be'],
  ["properties = repeat('[', 20000) || repeat(']', 20000)", 'expected properties to be'],
  [`properties = '{"headers":5}'`, 'expected properties.headers to be'],
  [`properties = '{"headers":{},"contentType":{}}'`, 'expected properties.contentType to be'],
  [`properties = '{"headers":{},"priority":{"!":"integer","value":[]}}'`, 'expected properties.priority to be'],
  [`properties = '{"headers":{"x-death":[1]}}'`, 'expected header "x-death" to be absent'],
  [`properties = '{"headers":{"CC":5}}'`, 'expected header "CC" to be'],
  [`properties = '{"headers":{"between":1700000000000000.25}}'`, 'expected header "between" to be'],
  [`properties = '{"headers":{"n":{"!":"float64","value":"none"}}}'`, 'expected header "n" to be'],
  [`properties = '{"headers":{"n":{"!":"int8","value":128}}}'`, 'expected header "n" to be'],
  [
    `properties = '{"headers":{"much":"' || repeat('x', 70000) || '"}}'`,
    'expected headers of at most 65536 bytes together',
  ],
  ["attempts = 2147483647, routing_key = 'not-there'", 'no queue took it'],
  ["attempts = -2147483648, routing_key = 'not-there'", 'no queue took it'],
]
/** And what is sent nevertheless. */
const HARMLESS = [
  "created_at = 'infinity'",
  "created_at = '-infinity'",
  "deliver_at = '-infinity'",
  "state = 'held', not_before = NULL",
  "state = 'held', not_before = '-infinity'",
  "xid = '3', placed = false",
]

describe('a row that somebody wrote by hand', function () {
  this.timeout(120_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  async function written(): Promise<{ queue: string; neighbours: number }> {
    const queue = await r.queue()
    const sets = [...BY_HAND.map(([set]) => set), ...HARMLESS]
    const ids = await r.add(
      ...Array.from({ length: 2 * sets.length }, (_, i) => ({ queue, key: `k${i >> 1}`, body: i })),
    )
    for (const [i, set] of sets.entries())
      await r.sql(`UPDATE {schema}.outbox SET ${set} WHERE message_id = $1`, [ids[2 * i]])
    return { queue, neighbours: sets.length + HARMLESS.length }
  }

  const quick = { pollMs: 20, attempts: 2, backoff: fixed({ delayMs: 10 }), backlogEveryMs: 100 }
  const errors = async () =>
    (await r.sql<{ last_error: string }>("SELECT last_error FROM {schema}.outbox WHERE state = 'parked'")).map(
      ({ last_error }) => last_error,
    )

  it('is parked with a reason that names the column, and stops no other row, not even of its key', async () => {
    const { queue, neighbours } = await written()
    const arrivals = await r.arrivals(queue)
    const paused = r.record('relay.state')
    const relay = await r.relay(quick)
    await arrivals.count(neighbours)
    await eventually(async () => expect(await r.states()).deep.equal(BY_HAND.map(() => 'parked')), { withinMs: 30_000 })
    const found = await errors()
    for (const [set, says] of BY_HAND)
      expect(
        found.find((it) => it.includes(says)),
        set,
      ).not.equal(undefined)
    expect(paused.filter(({ to }) => to === 'paused')).empty
    expect(relay.problems).empty
  })

  it('can be looked at, tried again and dropped with all the others', async () => {
    await written()
    const desk = new OutboxDesk({ pool: r.pool, schema: r.schema.name })
    await desk.park({ state: 'ready' })
    await desk.park({ state: 'held' })
    const positions: string[] = []
    for await (const { position } of desk.list()) positions.push(position)
    expect(positions.length).equal(2 * (BY_HAND.length + HARMLESS.length))
    const shown = await desk.show(positions.map(BigInt)[0]!)
    expect(shown[0]).property('unreadable')
    expect((await desk.status())[0]).property('parked', positions.length)
    const unfit: (string | undefined)[] = []
    await desk.retry({ state: 'parked' }, { onOutcome: ({ done, why }) => void (done || unfit.push(why)) })
    expect(unfit).deep.equal(['its key is longer than 255 bytes'])
    await desk.park({ state: 'held' })
    expect(await desk.drop({ state: 'parked' })).property('done', positions.length)
    expect(await r.states()).empty
  })
})

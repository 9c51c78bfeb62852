import { Readable } from 'node:stream'
import { expect } from 'chai'
import { importLines } from '../../lib/dead-letter/import.ts'
import { exportLine, importLine, linesOf } from '../../lib/dead-letter/ndjson.ts'
import { HEADER, InvalidOption, MemoryIdempotencyStore, MessageInvalid, onEvent } from '../../lib/index.ts'
import type { Publisher } from '../../lib/producer/publisher.ts'
import { archiveQueueOf, workQueueTopology } from '../../lib/topology/queues.ts'
import { latch } from '../support/eventually.ts'
import { all, Bench, ids } from './support.ts'

describe('dead letters: discard, restore, edit, export, import', function () {
  this.timeout(120_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open()
    await bench.surehop.declare({ queues: workQueueTopology(bench.queue).queues })
  })
  afterEach(() => bench.close())

  it('discards to the archive and restores, story and all', async () => {
    await bench.bury(4)
    const letters = bench.letters()
    const before = await letters.show('m-1')
    const told: string[] = []
    const end = onEvent('dead-letter.discarded', ({ messageId }) => told.push(messageId))
    expect(await letters.discard({ ids: ['m-1', 'm-2'] })).to.include({
      moved: 2,
      selected: 2,
      seen: 4,
      stopped: 'done',
    })
    end()
    expect(told.sort()).to.deep.equal(['m-1', 'm-2'])
    expect(await ids(letters.list())).to.deep.equal(['m-0', 'm-3'])
    const [archived] = await all(letters.list({ ids: ['m-1'] }, { archive: true }))
    expect(archived?.discardedAt).to.be.instanceOf(Date)
    expect(await letters.restore()).to.include({ moved: 2 })
    expect(await ids(letters.list())).to.have.members(['m-0', 'm-1', 'm-2', 'm-3'])
    expect(await letters.show('m-1')).to.deep.equal(before)
    expect(await letters.count({ archive: true })).to.equal(0)
  })

  it('refuses an option it does not know: a `dryrun` that is none would discard', async () => {
    await bench.bury(1)
    const mistyped = { dryrun: true } as object
    const letters = bench.letters()
    for (const attempt of [
      () => letters.discard({}, mistyped),
      () => letters.restore({}, mistyped),
      () => letters.importFrom(Readable.from([]), mistyped),
      () => letters.count(mistyped),
    ]) {
      const error = await attempt().catch((e: Error) => e)
      expect(error).to.be.instanceOf(InvalidOption)
      expect((error as Error).message).to.contain('"dryrun"')
    }
    expect(await letters.count()).to.equal(1)
  })

  it('keeps the word of the broker when it moves a letter', async () => {
    bench.put(bench.queue, { i: 1 }, { messageId: 'poison' })
    await bench.confirmed()
    const message = await bench.channel.get(bench.queue)
    if (message) bench.channel.nack(message, false, false)
    await bench.holds(1)
    await bench.letters().discard()
    await bench.letters().restore()
    const [letter] = await all(bench.letters().list())
    expect(letter).to.include({ id: 'poison', reason: 'rejected', queue: bench.queue })
  })

  it('edits: a new generation with a link to the original, which goes to the archive, and runs with the new body', async () => {
    const store = new MemoryIdempotencyStore()
    const bodies: unknown[] = []
    const handler = ({ body }: { body: unknown }) => {
      if ((body as { country: string }).country === 'XX') throw new TypeError('no such country')
      bodies.push(body)
    }
    await bench.consume(handler, { idempotency: store })
    await bench.surehop
      .producer()
      .send(bench.queue, { body: { country: 'XX' }, messageId: 'm-0', type: 'order.placed' })
    await bench.holds(1)
    const letters = bench.letters(store)
    const edited = await letters.edit('m-0', { body: { country: 'DE' }, headers: { 'x-fixed-by': 'ops' } })
    expect(edited).to.include({ id: 'm-0', generation: 1, editedFrom: 'm-0#0', errorType: 'TypeError' })
    expect(await letters.count()).to.equal(1)
    expect(await ids(letters.list({}, { archive: true }))).to.deep.equal(['m-0'])
    expect(await letters.replay()).to.include({ replayed: 1, completed: 1 })
    expect(bodies).to.deep.equal([{ country: 'DE' }])
    const original = await letters.restore()
    expect(original.moved).to.equal(1)
    expect(await letters.replay()).to.include({ replayed: 0, skipped: 1 })
  })

  it('lets what an edited letter causes through, though the mistaken one caused something at the same place', async () => {
    const store = new MemoryIdempotencyStore()
    const next = `${bench.queue}-next`
    const seen: unknown[] = []
    const both = latch<void>()
    await bench.surehop.consume(next, { idempotency: store }, ({ body }) => {
      if (seen.push(body) === 2) both.resolve()
    })
    await bench.consume(
      async ({ body }, { send }) => {
        await send(next, { body })
        if (body === 'wrong') throw new TypeError('found out too late')
      },
      { idempotency: store },
    )
    await bench.surehop.producer().send(bench.queue, { body: 'wrong', messageId: 'm-0' })
    await bench.holds(1)
    const letters = bench.letters(store)
    await letters.edit('m-0', { body: 'right' })
    expect(await letters.replay()).to.include({ completed: 1 })
    await both.promise
    expect(seen).to.deep.equal(['wrong', 'right'])
  })

  it('discards and edits also where the archive was deleted meanwhile, though nobody reconnects', async () => {
    await bench.bury(2)
    const letters = bench.letters()
    const gone = () => bench.channel.deleteQueue(archiveQueueOf(bench.queue))
    await gone()
    expect(await letters.discard({ ids: ['m-0'] })).to.include({ moved: 1, failed: 0 })
    await gone()
    await letters.edit('m-1', { body: 'right' })
    expect(await ids(letters.list({}, { archive: true }))).to.deep.equal(['m-1'])
  })

  it('edits all copies of a letter with it, so that a replay handles the edited message and not one of them', async () => {
    await bench.bury(2, (i) => ({ id: 'm-0', body: 'wrong', deadAt: Date.now() + i }))
    await bench.bury(1, () => ({ id: 'm-0', body: 'of another' }))
    const store = new MemoryIdempotencyStore()
    const letters = bench.letters(store)
    const edited = await letters.edit('m-0', { body: 'right' })
    expect(edited).to.include({ generation: 1, replaced: 2, remaining: 1 })
    expect((await letters.show('m-0')).map(({ body }) => body.toString())).to.deep.equal(['"of another"', '"right"'])
    expect(await ids(letters.list({}, { archive: true }))).to.deep.equal(['m-0'])
    await letters.discard({ where: 'generation=0' })
    const seen: unknown[] = []
    await bench.consume(({ body }) => void seen.push(body), { idempotency: store })
    expect(await letters.replay()).to.include({ selected: 1, completed: 1 })
    expect(seen).to.deep.equal(['right'])
  })

  it('leaves one version to be sent again where an edit fails: the original', async () => {
    await bench.bury(1)
    const letters = bench.letters()
    const headers = { large: 'x'.repeat(66_000) }
    const error = await letters.edit('m-0', { body: 1, headers }).catch((e: Error) => e)
    expect(error).to.be.instanceOf(Error)
    expect((await all(letters.list())).map(({ generation }) => generation)).to.deep.equal([0])
    // Had the edited one gone first, a failure in between would leave both.
    expect(await ids(letters.list({}, { archive: true }))).to.deep.equal(['m-0'])
  })

  it('refuses an edit that hides headers in one named "__proto__"', async () => {
    await bench.bury(1)
    const headers = JSON.parse('{"__proto__":{"CC":["elsewhere"],"surehop-generation":9}}') as Record<string, unknown>
    const error = await bench
      .letters()
      .edit('m-0', { headers })
      .catch((e: Error) => e)
    expect(error).to.be.instanceOf(MessageInvalid)
    expect((error as Error).message).to.contain('"__proto__"')
    expect(await ids(bench.letters().list())).to.deep.equal(['m-0'])
  })

  it('refuses an edit that would make another message, or touch reserved headers', async () => {
    await bench.bury(1)
    const letters = bench.letters()
    for (const edit of [
      { properties: { messageId: 'other' } },
      { headers: { 'surehop-generation': 7 } },
      { bodi: 1 } as object,
    ]) {
      const error = await letters.edit('m-0', edit).catch((e: Error) => e)
      expect(error).to.be.instanceOf(InvalidOption)
    }
    expect(await letters.edit('nobody', { body: 1 }).catch((e: Error) => e.message)).to.contain(
      'no letter there has it',
    )
    expect(await letters.count()).to.equal(1)
  })

  it('gives an id to a letter that has none', async () => {
    bench.put(bench.dead, { i: 1 })
    await bench.confirmed()
    const [letter] = await all(bench.letters().list())
    const edited = await bench.letters().edit(letter!.id, { properties: { messageId: 'given' } })
    expect(edited.id).to.equal('given')
    expect(await ids(bench.letters().list())).to.deep.equal(['given'])
  })

  it('exports and imports every byte, header and property', async () => {
    const bodies = [
      { a: 1 },
      Buffer.from('{ "spaced": 12345678901234567890 }'),
      Buffer.from([0xff, 0, 1]),
      Buffer.from('"\\u0041"'),
    ]
    await bench.bury(4, (i) => ({
      body: bodies[i],
      headers: {
        'x-bytes': Buffer.from([1, 2]),
        'x-nested': { list: [1, 'two', null] },
        'x-at': { '!': 'timestamp', value: 1_700_000_000 },
      },
    }))
    const letters = bench.letters()
    const lines = await all(letters.exportTo())
    const before = []
    for (let i = 0; i < 4; i++) before.push(...(await letters.show(`m-${i}`)))
    await bench.channel.purgeQueue(bench.dead)
    expect(JSON.parse(lines[0]!)).to.have.property('body').deep.equal({ a: 1 })
    expect(JSON.parse(lines[1]!)).to.have.property('bodyBase64')
    expect(await letters.importFrom(Readable.from(lines))).to.deep.equal({ letters: 4 })
    const after = []
    for (let i = 0; i < 4; i++) after.push(...(await letters.show(`m-${i}`)))
    expect(after).to.deep.equal(before)
    expect((await all(letters.exportTo())).map(parsed)).to.deep.equal(lines.map(parsed))
  })

  it('names the line of a mistake, and imports nothing of it', async () => {
    await bench.bury(1)
    const [line = ''] = await all(bench.letters().exportTo())
    const good = JSON.parse(line) as Record<string, unknown>
    const cases: [string, RegExp][] = [
      ['{"surehop":1', /line 3: no JSON/],
      ['[1]', /line 3: line: expected a JSON object/],
      [JSON.stringify({ ...good, surehop: 9 }), /line 3: surehop: expected 1/],
      [JSON.stringify({ ...good, extra: 1 }), /line 3: extra: no field/],
      [JSON.stringify({ ...good, properties: { messageId: 5 } }), /line 3: properties.messageId: expected a text/],
      [JSON.stringify({ ...good, body: undefined, bodyBase64: '***' }), /line 3: bodyBase64: expected base64/],
      [JSON.stringify({ ...good, headers: { big: 'x'.repeat(70_000) } }), /line 3: headers: expected at most/],
      ['{"surehop":1,"properties":{},"headers":{"big":1e999},"body":1}', /line 3: .*a finite number/],
      ['{"surehop":1,"properties":{},"headers":{"__proto__":{"CC":["elsewhere"]}},"body":1}', /line 3: .*"__proto__"/],
    ]
    for (const [bad, expected] of cases) {
      const error = await bench
        .letters()
        .importFrom(Readable.from([line, '\n', `${bad}\n`]), { dryRun: true })
        .catch((e: Error) => e)
      expect(error).to.be.instanceOf(MessageInvalid)
      expect((error as Error).message).to.match(expected)
    }
    expect(await bench.count()).to.equal(1)
  })

  it('names the line that cannot be sent, and the one that is no UTF-8, which would become another letter', async () => {
    await bench.bury(1)
    const [line = ''] = await all(bench.letters().exportTo())
    const { headers, ...rest } = JSON.parse(line) as Record<string, object>
    const many = Object.fromEntries(Array.from({ length: 8_800 }, (_, i) => [`h${i}`, 1]))
    const crowded = `${JSON.stringify({ ...rest, headers: { ...headers, ...many } })}\n`
    const broken = Buffer.from(line)
    broken[line.indexOf('TimeoutError')] = 0xe9
    const mistake = (lines: (string | Buffer)[]) =>
      bench
        .letters()
        .importFrom(Readable.from(lines))
        .catch((e: Error) => e.message)
    expect(await mistake([line, crowded])).to.match(/^line 2: /)
    expect(await mistake([line, Buffer.concat([Buffer.from(line), broken])])).to.match(/^line 3: .*UTF-8/)
    expect(await bench.count()).to.equal(4)
  })

  it('reads a large letter in small pieces in no more time than it takes to read them', async () => {
    const pieces = Array.from({ length: 400 }, () => Buffer.alloc(2 ** 16, 0x78))
    const started = process.cpuUsage()
    for await (const line of linesOf(Readable.from(pieces))) expect(line).to.have.length(400 * 2 ** 16)
    const { user, system } = process.cpuUsage(started)
    expect((user + system) / 1_000, 'ms of CPU').to.be.below(5_000)
  })

  it('imports large letters few at a time: the sender refuses what waits beyond its memory', async () => {
    const line = JSON.stringify({ surehop: 1, properties: {}, headers: {}, body: 'x'.repeat(2 ** 20) })
    let [open, most] = [0, 0]
    const publish = async () => {
      most = Math.max(most, ++open)
      await new Promise((resolve) => setImmediate(resolve))
      open--
    }
    const parts = { publisher: { publish } as unknown as Publisher, dead: 'q.dead' }
    async function* source() {
      for (let i = 0; i < 40; i++) yield `${line}\n`
    }
    expect(await importLines(source(), parts, {})).to.deep.equal({ letters: 40 })
    expect(most).to.be.within(2, 17)
  })

  it('tells a mistake to the caller also when the source is slow, after the lines before it and none behind', async () => {
    await bench.bury(1)
    const [line = ''] = await all(bench.letters().exportTo())
    async function* slowly() {
      yield `${line}{bad\n${line}`
      await new Promise((resolve) => setImmediate(resolve))
      yield line
    }
    const error = await bench
      .letters()
      .importFrom(slowly())
      .catch((e: Error) => e)
    expect((error as Error).message).to.match(/line 2: no JSON/)
    expect(await bench.count()).to.equal(2)
  })

  it('keeps bodies of any depth, and tables that look like what a line has for bytes', () => {
    const headers = { a: { $bytes: 'QUI=' }, b: { $int: '5', c: [{ $table: { d: 1 } }] }, $int: '7' }
    for (const depth of [1, 100, 101, ...Array.from({ length: 200 }, (_, i) => 4_000 + i)]) {
      const content = Buffer.from(`${'["[\\"",'.repeat(depth)}1${']'.repeat(depth)}`)
      const raw = { content, fields: FIELDS, properties: { messageId: 'a', headers } }
      const line = exportLine(raw)
      expect(JSON.parse(line)).to.have.property(depth > 100 ? 'bodyBase64' : 'body')
      const letter = importLine(line, 'q.dead')
      expect(letter.content.equals(content)).to.equal(true)
      expect(letter.properties.headers).to.include.keys('$int').and.deep.include(headers)
    }
    const deep = `{"surehop":1,"properties":{},"body":${'['.repeat(100_000)}${']'.repeat(100_000)}}`
    expect(() => importLine(deep, 'q.dead')).to.throw(MessageInvalid, /body: nested too deep/)
  })

  it('keeps the identity and story of a line without a broker', () => {
    const raw = {
      content: Buffer.from('{"n":1}'),
      fields: FIELDS,
      properties: {
        messageId: 'a',
        timestamp: 1.7e18,
        headers: { [HEADER.reason]: 'why', 'x-death': [{ queue: 'q', reason: 'expired' }] },
      },
    }
    const letter = importLine(exportLine(raw), 'q.dead')
    expect(letter).to.include({ messageId: 'a', routingKey: 'q.dead' })
    expect(letter.properties.headers).to.include({ [HEADER.reason]: 'expired', [HEADER.queue]: 'q' })
    expect(letter.properties.headers).not.to.have.property('x-death')
    expect(letter.properties.timestamp).to.equal(1.7e18)
  })
})

const FIELDS = { deliveryTag: 1, redelivered: false, exchange: '', routingKey: 'q.dead' }

/** The broker sorts headers, so lines are compared by what they say. */
function parsed(line: string): unknown {
  return JSON.parse(line)
}

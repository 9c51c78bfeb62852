import { expect } from 'chai'
import { widthOf } from '../../bin/text.ts'
import { type Row, Writing } from '../outbox/writing.ts'
import { unique } from '../support/unique.ts'
import { answeredLate, lines, surehop } from './command.ts'

const EVIL = 'evil\u001b[31m\u001b]0;title\u0007\u009b2J\u202egnp.exe\nnext'
const NEVER_SHOWN = /[\p{Cc}\p{Cf}]/u

describe('the command: outbox', function () {
  this.timeout(180_000)
  let w: Writing
  let outbox: string
  before(async () => {
    w = await Writing.open()
  })
  after(() => w.close())
  beforeEach(() => {
    outbox = unique('orders')
  })
  afterEach(() => w.clear())

  function run(verb: string, ...args: string[]) {
    return surehop(['outbox', verb, '--schema', w.schema.name, '--outbox', outbox, ...args], {
      env: { DATABASE_URL: w.schema.url, AMQP_URL: undefined, COLUMNS: '140' },
    })
  }

  /** Writes messages `m-0`, `m-1`... and sets their columns. */
  async function put(count: number, set = '', of: (i: number) => object = () => ({})): Promise<void> {
    const messages = Array.from({ length: count }, (_, i) => {
      return { exchange: 'shop', type: 'order.placed', body: { order: i }, messageId: `m-${i}`, ...of(i) }
    })
    await w.committed((client) => w.open({ name: outbox }).add(messages, client))
    if (set) await w.pool.query(`UPDATE ${w.schema.name}.outbox SET ${set} WHERE name = $1`, [outbox])
  }
  const PARKED = "state = 'parked', attempts = 20, last_error = 'returned: no queue is bound', ended_at = now()"

  async function stateOf(messageId: string): Promise<string | undefined> {
    return (await w.rows()).find((row) => row.message_id === messageId)?.state
  }

  it('lists what is parked and why, no wider than the terminal, and says where to go on', async () => {
    await put(60, PARKED, () => ({ key: 'order-17' }))
    const { code, stdout, stderr } = await run('list')
    expect(code).to.equal(0)
    const rows = stdout.trimEnd().split('\n')
    expect(rows).to.have.length(51)
    expect(Math.max(...rows.map(widthOf))).to.be.at.most(140)
    expect(rows[1]).to.match(/m-0 .*order\.placed .*order-17 .*shop .*20 .*returned: no queue is bound/)
    const after = /--after (\d+)/.exec(stderr)?.[1]
    const rest = await run('list', '--after', String(after))
    expect(rest.stdout.trimEnd().split('\n')).to.have.length(11)
    expect(rest.stdout).to.contain('m-50')
  })

  it('gives the reason the room that id and destination already have', async () => {
    const message =
      'message m-0 to exchange "shop" with routing key "order.placed" was not published (not-sent): cannot publish to exchange "shop": exchange "shop" does not exist. Nothing was sent.'
    await put(1, PARKED.replace('returned: no queue is bound', message))
    expect((await run('list')).stdout).to.match(/20 +exchange "shop" does not exist/)
  })

  it('writes NDJSON for pipes, everything and nothing else', async () => {
    await put(60)
    const { code, stdout, stderr } = await run('list', '--state', 'ready', '--json')
    expect([code, stderr]).to.deep.equal([0, ''])
    const rows = lines(stdout)
    expect(rows).to.have.length(60)
    expect(rows[0]).to.include({ messageId: 'm-0', state: 'ready', outbox, exchange: 'shop', bodyBytes: 11 })
    expect(lines((await run('list', '--state', 'ready', '--json', '--limit', '2')).stdout)).to.have.length(2)
  })

  it('shows one message with headers and body, as words, JSON or bytes, by id or position', async () => {
    await put(
      1,
      "state = 'held', not_before = now() + interval '1 hour', attempts = 3, last_error = 'no exchange'",
      () => ({
        headers: { big: 2n ** 60n, when: new Date(0) },
        key: 'order-17',
      }),
    )
    const { code, stdout } = await run('show', 'm-0')
    expect(code).to.equal(0)
    expect(stdout)
      .to.match(/state +held, again in (60 min|1 h)/)
      .and.to.match(/error +no exchange/)
      .and.to.contain('"order": 0')
      .and.to.contain(String(2n ** 60n))
    const [{ position }] = (await w.rows()) as [Row]
    const [json] = lines((await run('show', '--position', String(position), '--json')).stdout)
    expect(json).to.deep.include({ messageId: 'm-0', body: { order: 0 }, key: 'order-17' })
    expect(json!['headers']).to.include({ big: String(2n ** 60n), when: '1970-01-01T00:00:00.000Z' })
    expect((await run('show', 'm-0', '--raw')).stdout).to.equal('{"order":0}')
  })

  it('says clearly that there is no such message, with exit code 1', async () => {
    for (const verb of ['show', 'retry', 'park', 'drop']) {
      const { code, stderr } = await run(verb, 'nobody')
      expect(code, verb).to.equal(1)
      expect(stderr).to.contain(`No message with the id nobody in outbox ${outbox}`)
    }
    expect((await run('show', '4711')).stderr).to.contain('Is it a position? Then say --position.')
    expect((await run('show', '--position', '4711')).stderr).to.contain('No message at position 4711')
  })

  it('lets nothing in a message act on the terminal', async () => {
    const of = () => ({ messageId: EVIL, type: EVIL, key: EVIL, exchange: EVIL, body: EVIL, headers: { [EVIL]: EVIL } })
    await put(1, '', of)
    await w.pool.query(`UPDATE ${w.schema.name}.outbox SET state = 'parked', attempts = 20, last_error = $1`, [EVIL])
    const outputs = [
      await run('list'),
      await run('list', '--json'),
      await run('show', EVIL),
      await run('show', EVIL, '--json'),
      await run('show', `nobody${EVIL}`),
      await run('retry', EVIL, '--dry-run'),
      await run('drop', EVIL, '--dry-run', '--json'),
      await run('park', EVIL),
      await run('status'),
    ]
    for (const { stdout, stderr } of outputs) {
      expect(stdout.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
      expect(stderr.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
    }
    expect(lines(outputs[1]!.stdout)[0]).to.include({ messageId: EVIL })
  })

  it('says what it would do, and refuses to do it unasked where nobody can answer', async () => {
    await put(3, PARKED)
    for (const verb of ['retry', 'drop']) {
      const { code, stderr } = await run(verb, '--state', 'parked')
      expect(code).to.equal(2)
      expect(stderr).to.contain(`Would ${verb} 3 messages.`).and.to.contain('say --yes')
    }
    const dry = await run('retry', '--state', 'parked', '--limit', '2', '--dry-run')
    expect(dry.code).to.equal(0)
    expect(dry.stdout).to.equal('would retry  m-0 order.placed\nwould retry  m-1 order.placed\n')
    expect((await w.rows()).map(({ state }) => state)).to.deep.equal(['parked', 'parked', 'parked'])
  })

  it('retries, parks and drops what is chosen, and says what that means for order and sending', async () => {
    await put(4, PARKED, (i) => (i < 2 ? { key: 'k' } : {}))
    const retried = await run('retry', 'm-0', 'm-2', '--yes')
    expect(retried.code).to.equal(0)
    expect(retried.stderr)
      .to.contain('Put back 2 messages.')
      .and.to.contain('1 of them with a key: sent after whatever of their key went on meanwhile.')
    expect([await stateOf('m-0'), await stateOf('m-2')]).to.deep.equal(['held', 'held'])
    const parked = await run('park', 'm-0', 'm-1', '--yes')
    expect(parked.code).to.equal(1)
    expect(parked.stdout).to.equal('would skip  m-1 order.placed: it is parked already\n')
    expect(parked.stderr)
      .to.contain('Parked 1 message, skipped 1.')
      .and.to.contain('1 of them may have been sent in the same moment')
    const dropped = await run('drop', '--state', 'parked', '--yes', '--json')
    expect(dropped.code).to.equal(0)
    expect(
      lines(dropped.stdout)
        .map((line) => [line['messageId'], line['outcome']])
        .sort(),
    ).to.deep.equal([
      ['m-0', 'dropped'],
      ['m-1', 'dropped'],
      ['m-3', 'dropped'],
    ])
    expect((await run('drop', 'm-2', '--yes')).code).to.equal(1)
    expect(await stateOf('m-2')).to.equal('held')
    expect((await run('drop', 'm-2', '--force', '--yes')).code).to.equal(0)
    expect(await w.rows()).to.deep.equal([])
  })

  it('does it to those that were asked about and no others, when the answer comes late', async () => {
    await put(3, PARKED)
    const args = ['outbox', 'drop', '--schema', w.schema.name, '--outbox', outbox, '--state', 'parked', '--limit', '2']
    const meanwhile = async () => {
      await run('retry', 'm-0', '--yes')
      await w.pool.query(`UPDATE ${w.schema.name}.outbox SET last_error = 'by now' WHERE name = $1`, [outbox])
    }
    const { code, stderr } = await answeredLate(args, meanwhile, { DATABASE_URL: w.schema.url })
    expect(code, stderr).to.equal(0)
    expect(stderr).to.contain('Drop 2 messages?').and.to.contain('Dropped 1 message, skipped 1.')
    expect([await stateOf('m-0'), await stateOf('m-1'), await stateOf('m-2')]).to.deep.equal([
      'held',
      undefined,
      'parked',
    ])
  })

  it('status tells what waits and whether relays send it, with an exit code for monitoring', async () => {
    await put(2)
    const alone = await run('status')
    expect(alone.code).to.equal(1)
    expect(alone.stdout).to.match(/READY +HELD +PARKED/)
    expect(alone.stderr).to.contain(`No relay sends outbox ${outbox}, and 2 messages wait`)
    await w.pool.query(`INSERT INTO ${w.schema.name}.outbox_relays VALUES ($1, 'r', now() + interval '1 hour')`, [
      outbox,
    ])
    await w.pool.query(
      `INSERT INTO ${w.schema.name}.outbox_shards (name, shard, owner, until)
       SELECT $1, s, 'r', now() + interval '1 hour' FROM generate_series(0, 63) AS s`,
      [outbox],
    )
    const served = await run('status', '--json')
    expect([served.code, served.stderr]).to.deep.equal([0, ''])
    expect(lines(served.stdout)[0]).to.include({ outbox, ready: 2, held: 0, parked: 0, relays: 1, unownedShards: 0 })
  })

  it('tells misuse (2), a database out of reach (3) and missing tables (1) apart, without a password', async () => {
    const cases: [string[], number, string][] = [
      [['park'], 2, 'expected message ids or --position'],
      [['park', 'm-0', '--state', 'ready'], 2, 'expected message ids or --position'],
      [['show'], 2, 'expected either the id of a message or --position'],
      [['list', '--state', 'gone'], 2, 'Allowed choices are ready, held, parked, sent'],
      [['list', '--after', 'x'], 2, 'expected a position'],
      [['status', '--database', 'postgres://me:secret@127.0.0.1:1/none'], 3, 'nothing listens there'],
      [['status', '--schema', 'not_there'], 1, 'surehop migrate'],
    ]
    for (const [[verb = '', ...args], code, text] of cases) {
      const ran = await run(verb, ...args)
      expect(ran.code, ran.stderr).to.equal(code)
      expect(ran.stderr).to.contain(text).and.not.to.contain('secret')
    }
  })
})

import { expect } from 'chai'
import { widthOf } from '../../bin/text.ts'
import { MemoryDecisionStore, migrate, PostgresDecisionStore } from '../../lib/index.ts'
import { freshSchema } from '../support/database.ts'
import { unique } from '../support/unique.ts'
import {
  amqpUrl,
  bench,
  closeAll,
  event,
  exactly,
  messageTo,
  nothingWaits,
  redisDecisions,
  redisUrl,
  sendRaw,
} from '../transactional-message/setup.ts'
import { lines, type RunOptions, surehop } from './command.ts'

const EVIL = 'evil\u001b[31m\u001b]0;title\u0007\u009b2J\u202egnp.exe\nnext'
const NEVER_SHOWN = /[\p{Cc}\p{Cf}]/u

/** Parks after one check; the background watch keeps out of the way. */
const PARKS = { firstCheckMs: 150, checks: 1, checkCapMs: 600_000 } as const

/** A running service whose transactions were parked; `check` may learn the answer later. */
async function withParked(count: number, options: object = {}, more: (i: number) => object = () => ({})) {
  const opened = await bench({ decisions: new MemoryDecisionStore(), ...PARKS, ...options })
  const ids = Array.from({ length: count }, (_, i) => `order-${i}`)
  for (const [i, transactionId] of ids.entries())
    await opened.payments.prepare([messageTo(opened.work, { order: i }, more(i))], { transactionId })
  await nothingWaits(opened.name, count)
  const run = (verb: string, args: readonly string[] = [], run: RunOptions = {}) =>
    surehop(['transactions', verb, opened.name, ...args], {
      ...run,
      env: { AMQP_URL: amqpUrl(), COLUMNS: '140', ...run.env },
    })
  return { ...opened, ids, run }
}

function decided(transactionId: string, name: string) {
  return event('transaction.decided', (data) => data.transactionId === transactionId && data.name === name)
}

describe('the command: transactions', function () {
  this.timeout(180_000)
  afterEach(closeAll)

  it('lists what is parked, no wider than the terminal, with counts and who checks back; looking changes nothing', async () => {
    const { run, work, name } = await withParked(52)
    for (const COLUMNS of ['80', '140']) {
      const { code, stdout, stderr } = await run('list', [], { env: { COLUMNS } })
      expect(code).to.equal(0)
      const rows = stdout.trimEnd().split('\n')
      expect(rows).to.have.length(51)
      expect(Math.max(...rows.map(widthOf))).to.be.at.most(Number(COLUMNS))
      expect(rows[1]).to.match(/^ *\d+ (s|min) +order-0 .*payment\.made/)
      if (COLUMNS === '140')
        expect(rows[1])
          .to.match(/ test +1 +payment\.made +queue /)
          .and.to.contain(work.slice(0, 8))
      expect(stderr)
        .to.contain('The first 50, --limit shows more. 52 parked.')
        .and.to.contain('0 undecided, ready to be checked; 0 before their first check')
        .and.to.contain('1 instance of the service checks back.')
    }
    const { code, stdout, stderr } = await run('list', ['--json'])
    expect([code, stderr]).to.deep.equal([0, ''])
    const all = lines(stdout)
    expect(all).to.have.length(52)
    expect(all[0]).to.include({ transactionId: 'order-0', service: 'test' }).and.not.to.have.property('checks')
    expect(all[0]!['messages']).to.have.length(1)
    expect(lines((await run('list', ['--json', '--limit', '2'])).stdout)).to.have.length(2)
    await nothingWaits(name, 52)
  })

  it('shows checks and decisions only where their store is named, and never a made-up zero', async () => {
    const prefix = unique('decisions')
    const decisions = redisDecisions(redisUrl(), prefix)
    const { run, name } = await withParked(1, { decisions })
    await decisions.decide({ name, retentionMs: 60_000 }, 'order-0', 'rolled-back', 'service')
    const from = ['--decisions', 'redis', '--prefix', prefix]
    const env = { REDIS_URL: redisUrl() }
    expect((await run('list', [], { env })).stdout).not.to.contain('CHECKS')
    expect((await run('list', from, { env })).stdout).to.match(/CHECKS +DECIDED(.|\n)*order-0 +1 +rolled-back/)
    expect((await run('show', ['order-0', ...from], { env })).stdout).to.match(/checks +1\ndecided +rolled-back/)
    const dry = await run('commit', ['order-0', '--dry-run', ...from], { env })
    expect(dry.stdout).to.equal('would commit  order-0: rolled-back meanwhile, and that stands\n')
    const elsewhere = await run('list', ['--redis', redisUrl(), '--prefix', unique('other')])
    expect(elsewhere.stdout).to.match(/order-0 +\? /)
  })

  it('looks into a decision store in Postgres, too', async () => {
    await using schema = await freshSchema()
    await migrate(schema.pool, { schema: schema.name })
    const decisions = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name })
    const { run } = await withParked(1, { decisions })
    const { code, stdout } = await run('list', ['--decisions', 'postgres', '--schema', schema.name, '--json'])
    expect(code).to.equal(0)
    expect(lines(stdout)[0]).to.include({ transactionId: 'order-0', checks: 1 })
    const down = await run('list', ['--database', 'postgres://me:secret@127.0.0.1:1/none'])
    expect(down.code).to.equal(3)
    expect(down.stderr).not.to.contain('secret')
    await closeAll()
  })

  it('shows one transaction with its messages, as words, JSON or bytes; bodies only where asked for', async () => {
    const opened = await bench({ decisions: new MemoryDecisionStore(), ...PARKS })
    const { name, work, payments } = opened
    const more = { key: 'k-1', delayMs: 90_000, headers: { big: 2n ** 60n, tenant: 'a' } }
    const two = [messageTo(work, { secret: 1 }, more), messageTo(work, { secret: 2 }, { messageId: 'm-2' })]
    await payments.prepare(two, { transactionId: 'order-7' })
    await nothingWaits(name, 1)
    const show = (...args: string[]) => surehop(['transactions', 'show', name, 'order-7', ...args])
    const plain = await show()
    expect(plain.code, plain.stdout).to.equal(0)
    expect(plain.stdout)
      .to.match(/transaction +order-7\nprepared +20\S+Z \(.* ago\) by test\nmessages +2 messages\n/)
      .and.to.match(
        /Message 1 of 2\nid .*\ntype +payment\.made\nkey +k-1\nto +queue .*\ndelay +2 min from the prepare on/,
      )
      .and.to.match(/header +big: 1152921504606846976/)
      .and.to.match(/Message 2 of 2\nid +m-2/)
      .and.not.to.contain('secret')
    expect((await show('--body')).stdout)
      .to.contain('"secret": 1')
      .and.to.contain('"secret": 2')
    expect((await show('--message', '2', '--raw')).stdout).to.equal('{"secret":2}')
    const several = await show('--raw')
    expect([several.code, several.stdout]).to.deep.equal([2, ''])
    expect(several.stderr).to.contain('expected --message with --raw')
    const [json] = lines((await show('--json', '--body')).stdout)
    const [first] = json!['messages'] as Record<string, unknown>[]
    expect(first).to.deep.include({ key: 'k-1', delayMs: 90_000, queue: work, body: { secret: 1 } })
    expect(first!['headers']).to.deep.equal({ big: String(2n ** 60n), tenant: 'a' })
    expect((await show('--json')).stdout).not.to.contain('secret')
  })

  it('has a running instance commit, and each message arrives once', async () => {
    const { run, work, name, ids, payments } = await withParked(3)
    const done = ids.slice(0, 2).map((id) => decided(id, name))
    const { code, stdout, stderr } = await run('commit', ['order-0', 'order-1', '--yes'])
    expect([code, stdout]).to.deep.equal([0, ''])
    expect(stderr)
      .to.contain('Would commit 2 transactions.')
      .and.to.contain('Handed over 2 transactions to be committed.')
      .and.to.contain(`1 instance of the service takes them up (consumers of ${name}.half.check).`)
    for (const it of await Promise.all(done)) expect(it).to.include({ decision: 'committed', by: 'operator' })
    await nothingWaits(name, 1)
    const bodies = (await exactly(work, 2)).map(({ content }) => content.toString())
    expect(bodies.sort()).to.deep.equal(['{"order":0}', '{"order":1}'])
    const late = await payments.rollback('order-0').catch((error: { code: string }) => error.code)
    expect(late).to.equal('ALREADY_COMMITTED')
  })

  it('has it roll back all that are parked, and nothing is sent', async () => {
    const { run, work, name, payments } = await withParked(3)
    const { code, stdout, stderr } = await run('rollback', ['--all', '--yes', '--json'])
    expect(code).to.equal(0)
    expect(stderr).to.contain('Handed over 3 transactions to be rolled back.')
    expect(lines(stdout).map((line) => [line['transactionId'], line['outcome']])).to.have.deep.members(
      ['order-0', 'order-1', 'order-2'].map((id) => [id, 'handed over']),
    )
    await nothingWaits(name)
    await exactly(work, 0)
    const late = await payments.commit('order-1').catch((error: { code: string }) => error.code)
    expect(late).to.equal('ALREADY_ROLLED_BACK')
    const again = await run('rollback', ['--all', '--yes'])
    expect(again.code).to.equal(0)
    expect(again.stderr).to.equal(`Nothing is parked in ${name}.\n`)
  })

  it('has it asked once more without a question, and what is known by now is done', async () => {
    let answer: 'unknown' | 'commit' = 'unknown'
    const { run, work, name } = await withParked(1, { check: () => answer })
    const parkedAgain = event('transaction.parked', (data) => data.name === name)
    const first = await run('check', ['order-0'])
    expect(first.code).to.equal(0)
    expect(first.stderr).to.contain('Handed over 1 transaction to be checked once more.')
    await parkedAgain
    await nothingWaits(name, 1)
    answer = 'commit'
    expect((await run('check', ['--all'])).code).to.equal(0)
    await nothingWaits(name)
    await exactly(work, 1)
  })

  it('keeps the verdict for the next instance where none runs, and says so', async () => {
    const decisions = new MemoryDecisionStore()
    const { run, work, name, payments, surehop: service } = await withParked(1, { decisions })
    await payments.close()
    const listed = await run('list')
    expect(listed.stderr).to.contain(`No instance of the service runs: nobody consumes ${name}.half.check`)
    const { code, stderr } = await run('commit', ['order-0', '--yes'])
    expect(code).to.equal(0)
    expect(stderr).to.contain(
      `No instance of the service runs now (nobody consumes ${name}.half.check): it will be carried out when one starts.`,
    )
    const empty = await run('list')
    expect([empty.code, empty.stdout]).to.deep.equal([0, ''])
    expect(empty.stderr)
      .to.contain(`Nothing is parked in ${name}.`)
      .and.to.contain('1 undecided, ready to be checked; 0 before')
    await service.transactional(name, { ...PARKS, decisions, check: () => 'unknown' })
    await nothingWaits(name)
    await exactly(work, 1)
  })

  it('does the others where an id is unknown, with exit code 1', async () => {
    const { run, work, name } = await withParked(1)
    const unknown = `No parked transaction of ${name} has the id nobody: it was never prepared, is decided, or is still being checked.`
    for (const verb of ['show', 'commit', 'rollback', 'check']) {
      const { code, stderr } = await run(verb, ['nobody'])
      expect(code, verb).to.equal(1)
      expect(stderr).to.contain(unknown)
    }
    const { code, stderr } = await run('commit', ['nobody', 'order-0', '--yes'])
    expect(code).to.equal(1)
    expect(stderr).to.contain(unknown).and.to.contain('Handed over 1 transaction to be committed.')
    await nothingWaits(name)
    await exactly(work, 1)
  })

  it('says what it would do, and refuses to do it unasked where nobody can answer', async () => {
    const { run, name } = await withParked(2)
    for (const [verb, words] of [
      ['commit', 'commit'],
      ['rollback', 'roll back'],
    ] as const) {
      for (const which of [['--all'], ['order-0', 'order-1']]) {
        const { code, stderr } = await run(verb, which)
        expect(code).to.equal(2)
        expect(stderr).to.contain(`Would ${words} 2 transactions.`).and.to.contain('say --yes')
      }
      const dry = await run(verb, ['--all', '--dry-run'])
      expect(dry.code).to.equal(0)
      expect(dry.stdout).to.equal(`would ${words}  order-0\nwould ${words}  order-1\n`)
    }
    const dry = await run('check', ['order-1', '--dry-run', '--json'])
    expect(lines(dry.stdout)).to.deep.equal([{ transactionId: 'order-1', outcome: 'would check' }])
    await nothingWaits(name, 2)
  })

  it('shows what cannot be read, and hands over the others only', async () => {
    const { run, name } = await withParked(1)
    await sendRaw(`${name}.half.parked`, EVIL, { messageId: 'strange' })
    await nothingWaits(name, 2)
    expect((await run('list')).stdout).to.match(/ \? +strange .*cannot be read/)
    expect(lines((await run('list', ['--json'])).stdout)[1])
      .to.include({ transactionId: 'strange' })
      .and.not.to.have.any.keys('ageMs', 'preparedAt')
    expect((await run('show', ['strange'])).stdout).to.match(/unreadable +it is no half message/)
    const { code, stdout, stderr } = await run('rollback', ['--all', '--yes'])
    expect(code).to.equal(1)
    expect(stdout).to.match(/^would skip {2}strange: cannot be read/)
    expect(stderr).to.contain('Handed over 1 transaction to be rolled back.')
    await nothingWaits(name, 1)
  })

  it('lets nothing in a message act on the terminal', async () => {
    const opened = await bench({ decisions: new MemoryDecisionStore(), ...PARKS })
    const { name, work, payments } = opened
    const more = { messageId: EVIL, type: EVIL, key: EVIL, headers: { [EVIL]: EVIL } }
    await payments.prepare([messageTo(work, EVIL, more)], { transactionId: EVIL })
    await nothingWaits(name, 1)
    const run = (verb: string, ...args: string[]) => surehop(['transactions', verb, name, ...args])
    const outputs = [
      await run('list'),
      await run('list', '--json'),
      await run('show', EVIL, '--body'),
      await run('show', EVIL, '--body', '--json'),
      await run('show', `nobody${EVIL}`),
      await run('commit', '--all', '--dry-run'),
      await run('rollback', EVIL, `nobody${EVIL}`, '--dry-run', '--json'),
      await run('check', EVIL, `nobody${EVIL}`),
      await surehop(['transactions', 'list', `none${EVIL}`]),
    ]
    for (const { stdout, stderr } of outputs) {
      expect(stdout.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
      expect(stderr.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
      expect(stdout + stderr).not.to.match(/^next/m)
    }
    expect(lines(outputs[1]!.stdout)[0]).to.include({ transactionId: EVIL })
  })

  it('says that somebody else looks, and does nothing', async () => {
    const { run, name, surehop: service } = await withParked(1)
    const looking = service.transactions(name).list()
    await looking.next()
    for (const args of [['list'], ['commit', 'order-0', '--yes']]) {
      const { code, stderr } = await run(args[0]!, args.slice(1))
      expect(code).to.equal(1)
      expect(stderr).to.contain('being looked at').and.to.contain('Wait until they are done')
    }
    await looking.return(undefined)
    await nothingWaits(name, 1)
  })

  it('sends many in one pass over the parked ones, with a word for each', async () => {
    const { surehop: service, work, name, ids } = await withParked(230)
    const sent: string[] = []
    const onSent = (id: string) => void sent.push(id)
    const desk = service.transactions(name)
    const result = await desk.sendMany([...ids.slice(1), 'nobody'], 'commit', { onSent })
    expect(result).to.deep.equal({ sent: 229, unsent: ['nobody'] })
    expect(sent.sort()).to.deep.equal(ids.slice(1).sort())
    await nothingWaits(name, 1)
    await exactly(work, 229)
    const aborted = await desk.sendMany(ids, 'commit', { signal: AbortSignal.abort() })
    expect(aborted).to.deep.equal({ sent: 0, unsent: ids })
    await nothingWaits(name, 1)
  })

  it('tells misuse (2), a broker out of reach (3) and a name nobody used (1) apart, without a password', async () => {
    const nowhere = ['--amqp', 'amqp://me:secret@127.0.0.1:1/none']
    const cases: [string[], number, string][] = [
      [['commit', 'payments'], 2, 'expected transaction ids, or else --all'],
      [['rollback', 'payments', 'order-1', '--all'], 2, 'expected transaction ids, or else --all'],
      [['show', 'payments'], 2, "missing required argument 'id'"],
      [['list'], 2, "missing required argument 'name'"],
      [['list', 'payments.half'], 2, 'the plain name of the sender'],
      [['list', 'payments', '--redis', 'redis://x', '--database', 'postgres://x/y'], 2, 'either --redis or --database'],
      [['list', 'payments', '--decisions', 'mongo'], 2, 'Allowed choices are redis, postgres'],
      [['list', 'payments', ...nowhere], 3, '127.0.0.1:1'],
      [['list', unique('never-used')], 1, 'no service has prepared a transaction under the name never-used'],
      [['commit', unique('never-used'), 'order-1', '--yes'], 1, '.half.parked on this virtual host'],
    ]
    for (const [args, code, text] of cases) {
      const ran = await surehop(['transactions', ...args])
      expect(ran.code, ran.stderr).to.equal(code)
      expect(ran.stderr).to.contain(text).and.not.to.contain('secret')
    }
  })
})

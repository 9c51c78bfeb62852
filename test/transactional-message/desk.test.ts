import { expect } from 'chai'
import { migrate, PostgresDecisionStore, type Verdict } from '../../lib/index.ts'
import { freshSchema } from '../support/database.ts'
import { bench, caught, closeAll, connected, event, exactly, messageTo, nothingWaits, sendRaw, taken } from './setup.ts'

/** One transaction that nobody could decide. */
async function withParked(more: object = {}) {
  const opened = await bench({ checks: 1 })
  const parked = event('transaction.parked', ({ name }) => name === opened.name)
  const { transactionId } = await opened.payments.prepare([messageTo(opened.work, { secret: 1 }, more)])
  await parked
  await nothingWaits(opened.name, 1)
  return { ...opened, transactionId, desk: opened.surehop.transactions(opened.name, { decisions: opened.decisions }) }
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of source) items.push(item)
  return items
}

describe('the desk of parked transactions', () => {
  afterEach(closeAll)

  it('shows what waits for an operator, and changes nothing by looking', async () => {
    const { desk, transactionId, work } = await withParked({ key: 'k', delayMs: 1_000, headers: { tenant: 'a' } })
    for (let i = 0; i < 3; i++) {
      const [one, ...others] = await all(desk.list())
      expect(others).to.deep.equal([])
      expect(one).to.include({ transactionId, service: 'test', checks: 1, decision: undefined, unreadable: undefined })
      expect(one!.ageMs).to.be.within(100, 60_000)
      expect(one!.messages).to.have.length(1)
      expect(one!.messages[0]).to.include({
        type: 'payment.made',
        queue: work,
        key: 'k',
        delayMs: 1_000,
        bodyBytes: 12,
      })
      expect(JSON.stringify(one)).to.not.contain('secret')
    }
    expect(await desk.counts()).to.deep.equal({ waiting: 0, undecided: 0, parked: 1 })
    const [brief] = await desk.show(transactionId)
    expect(brief!.messages[0]).to.deep.include({ headers: { tenant: 'a' }, body: undefined })
    const [full] = await desk.show(transactionId, { bodies: true })
    expect(full!.messages[0]!.body?.toString()).to.equal('{"secret":1}')
    await nothingWaits(desk.name, 1)
  })

  it('has the service commit', async () => {
    const { desk, transactionId, work, name, payments } = await withParked()
    const decided = event('transaction.decided', (data) => data.transactionId === transactionId)
    expect(await desk.send(transactionId, 'commit')).to.equal(1)
    expect(await decided).to.include({ decision: 'committed', by: 'operator' })
    await taken(work)
    await nothingWaits(name)
    expect(await caught(payments.rollback(transactionId))).to.have.property('code', 'ALREADY_COMMITTED')
  })

  it('has the service roll back', async () => {
    const { desk, transactionId, work, name, payments } = await withParked()
    await desk.send(transactionId, 'rollback')
    await nothingWaits(name)
    await exactly(work, 0)
    const error = await caught(payments.commit(transactionId))
    expect(error).to.have.property('code', 'ALREADY_ROLLED_BACK')
    expect(error.message).to.contain('an operator')
  })

  it('has the service check once more, and parks it again when that says nothing', async () => {
    const { desk, transactionId, name } = await withParked()
    const checked = event('transaction.checked', (data) => data.transactionId === transactionId)
    const parked = event('transaction.parked', (data) => data.transactionId === transactionId)
    await desk.send(transactionId, 'check')
    expect(await checked).to.include({ check: 2 })
    await parked
    await nothingWaits(name, 1)
    expect((await all(desk.list()))[0]).to.include({ checks: 2 })
  })

  it('lets a decision stand that was made before, and says so', async () => {
    const { desk, transactionId, work, name, decisions } = await withParked()
    await decisions.decide({ name, retentionMs: 60_000 }, transactionId, 'rolled-back', 'service')
    const warned = event('transaction.warning', (data) => data.transactionId === transactionId)
    // The watch may have been quicker and sent it back: then there is nothing to send any more.
    const sent = await desk.send(transactionId, 'commit').catch((error: { code: string }) => error.code)
    if (sent === 1) expect((await warned).warning).to.contain('rolled-back before (by service)')
    else expect(sent).to.equal('TRANSACTION_UNKNOWN')
    await nothingWaits(name)
    await exactly(work, 0)
  })

  it('knows no other ids, and refuses other words', async () => {
    const { desk, transactionId } = await withParked()
    for (const verdict of ['commit', 'rollback', 'check'] as const)
      expect(await caught(desk.send('unknown', verdict))).to.have.property('code', 'TRANSACTION_UNKNOWN')
    expect(await caught(desk.show('unknown'))).to.have.property('code', 'TRANSACTION_UNKNOWN')
    expect(await caught(desk.send(transactionId, 'yes' as Verdict))).to.have.property('code', 'INVALID_OPTION')
    expect(await caught(desk.send('', 'check'))).to.have.property('code', 'INVALID_OPTION')
    const nowhere = (await connected()).transactions('never-used')
    expect(await caught(nowhere.counts())).to.have.property('code', 'RESOURCE_MISSING')
    await nothingWaits(desk.name, 1)
  })

  it('shows what cannot be read, and does not send it', async () => {
    const { desk, name } = await withParked()
    await sendRaw(`${name}.half.parked`, 'nonsense', { messageId: 'strange' })
    const strange = (await all(desk.list())).find(({ transactionId }) => transactionId === 'strange')
    expect(strange?.unreadable).to.be.a('string')
    expect(await caught(desk.send('strange', 'commit'))).to.have.property('code', 'TRANSACTION_UNKNOWN')
    await nothingWaits(name, 2)
  })

  it('shows all others, and what the store knows of them, beside what cannot be read and has an id that no store takes', async () => {
    const schema = await freshSchema()
    try {
      await migrate(schema.pool, { schema: schema.name })
      const decisions = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name })
      const { surehop, name, transactionId } = await withParked()
      await decisions.checked({ name, retentionMs: 60_000 }, transactionId)
      await sendRaw(`${name}.half.parked`, 'nonsense', { messageId: 'a\0b' })
      const told = await all(surehop.transactions(name, { decisions }).list())
      expect(told.map((one) => [one.transactionId, one.checks])).to.deep.equal([
        [transactionId, 1],
        ['a\0b', undefined],
      ])
    } finally {
      await schema.close()
    }
  })

  it('sends back what somebody gave headers that cannot be sent, and all others with it', async () => {
    const { desk, transactionId, name, work } = await withParked()
    const parked = `${name}.half.parked`
    const [stored] = await taken(parked)
    // As only a publisher in another language could forge it, and one that came as it was.
    const headers = { ...stored!.properties.headers, n: { '!': 'object', value: { '!': 1, value: 2 } } }
    for (const forged of [headers, {}])
      await sendRaw(parked, stored!.content, { messageId: `m-${Object.keys(forged).length}`, headers: forged })
    expect(await desk.sendMany([transactionId], 'commit')).to.deep.equal({ sent: 2, unsent: [] })
    await taken(work, 2)
    await nothingWaits(name)
  })

  it('is for one inspector at a time', async () => {
    const { desk, surehop, name } = await withParked()
    const looking = desk.list()
    await looking.next()
    expect(await caught(all(surehop.transactions(name).list()))).to.have.property('code', 'RESOURCE_BUSY')
    await looking.return(undefined)
    expect(await all(surehop.transactions(name).list())).to.have.length(1)
  })
})

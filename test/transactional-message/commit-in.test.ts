// Local work and decision in one database transaction.

import { expect } from 'chai'
import { Client } from 'pg'
import { migrate, PostgresDecisionStore } from '../../lib/index.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import {
  bench,
  caught,
  closeAll,
  event,
  exactly,
  halfOf,
  messageTo,
  nothingWaits,
  redisDecisions,
  sendRaw,
  taken,
} from './setup.ts'

describe('commitIn', () => {
  let schema: Schema
  let client: Client
  let decisions: PostgresDecisionStore

  before(async () => {
    schema = await freshSchema()
    await migrate(schema.pool, { schema: schema.name })
    decisions = new PostgresDecisionStore({ pool: schema.pool, schema: schema.name, lockTimeoutMs: 200 })
    client = new Client(schema.url)
    await client.connect()
    await client.query('CREATE TABLE work (id text)')
  })
  after(async () => {
    await client.end()
    await schema.close()
  })
  afterEach(closeAll)

  it('sends exactly if the transaction commits', async () => {
    const { payments, work, name } = await bench({ decisions, check: () => 'rollback', firstCheckMs: 500 })
    for (const end of ['COMMIT', 'ROLLBACK']) {
      const prepared = await payments.prepare([messageTo(work, end)])
      await client.query('BEGIN')
      await client.query('INSERT INTO work VALUES ($1)', [prepared.transactionId])
      await payments.commitIn(client, prepared.transactionId)
      await client.query(end)
      if (end === 'COMMIT') expect(await prepared.commit()).to.include({ outcome: 'published' })
    }
    await nothingWaits(name)
    const [message] = await exactly(work, 1)
    expect(message!.content.toString()).to.equal('"COMMIT"')
  })

  it('is not overruled by a check that cannot see the open transaction yet', async () => {
    const { payments, work, name } = await bench({ decisions, check: () => 'rollback', firstCheckMs: 100 })
    const prepared = await payments.prepare([messageTo(work)])
    await client.query('BEGIN')
    await payments.commitIn(client, prepared.transactionId)
    await event('transaction.warning', ({ warning }) => warning.includes('lock'))
    await client.query('COMMIT')
    await taken(work)
    await nothingWaits(name)
  })

  it('fails, so that the work is rolled back, where a check was quicker', async () => {
    const { payments, work, name } = await bench({ decisions, check: () => 'rollback', firstCheckMs: 100 })
    const rolledBack = event('transaction.decided', (data) => data.name === name)
    const prepared = await payments.prepare([messageTo(work)])
    await client.query('BEGIN')
    await client.query('INSERT INTO work VALUES ($1)', [prepared.transactionId])
    await rolledBack
    const error = await caught(payments.commitIn(client, prepared.transactionId))
    expect(error).to.have.property('code', 'ALREADY_ROLLED_BACK')
    await client.query('ROLLBACK')
    const { rows } = await client.query('SELECT 1 FROM work WHERE id = $1', [prepared.transactionId])
    expect(rows).to.have.length(0)
    await nothingWaits(name)
    await exactly(work, 0)
  })

  it('checks and sends beside a forged half message whose id Postgres cannot keep', async () => {
    const { payments, work, name } = await bench({ decisions, check: () => 'commit' })
    for (const transactionId of ['a\0b', '\ud800'])
      await sendRaw(`${name}.half.check`, halfOf({ v: 1, transactionId, preparedAt: 1, service: 's', messages: [] }))
    await payments.prepare([messageTo(work)])
    await taken(work)
    await nothingWaits(name, 2)
  })

  it('needs a store in the same database', async () => {
    const { payments } = await bench({ decisions: redisDecisions() })
    expect(await caught(payments.commitIn(client, 't'))).to.have.property('code', 'INVALID_OPTION')
  })
})

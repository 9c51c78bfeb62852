import { expect } from 'chai'
import { Client, type PoolClient } from 'pg'
import { z } from 'zod'
import {
  Closed,
  CommitRefused,
  InvalidOption,
  MessageInvalid,
  Outbox,
  type OutboxMessage,
  type OutboxOptions,
  onEvent,
  PermissionRefused,
  SchemaMismatch,
} from '../../lib/index.ts'
import { startChild } from '../support/child.ts'
import { eventually } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'
import { Writing } from './writing.ts'

describe('adding to the outbox', function () {
  this.timeout(60_000)
  let w: Writing
  let client: PoolClient
  before(async () => {
    w = await Writing.open()
    await w.pool.query('CREATE TABLE orders (id text PRIMARY KEY)')
  })
  after(() => w.close())
  beforeEach(async () => {
    client = await w.pool.connect()
    await client.query('BEGIN')
  })
  afterEach(async () => {
    await client.query('ROLLBACK')
    client.release()
    await w.pool.query('DELETE FROM orders')
    await w.clear()
  })
  const commit = () => client.query('COMMIT')

  async function refusal(run: () => Promise<unknown>): Promise<Error & { path?: string }> {
    return run().then(
      () => expect.fail('it was accepted'),
      (error) => error,
    )
  }

  it('writes the message exactly if the transaction commits', async () => {
    await client.query("INSERT INTO orders VALUES ('o-1')")
    await w.outbox.add({ exchange: 'shop', type: 'order.placed', body: 1 }, client)
    await client.query('ROLLBACK')
    expect(await w.rows()).to.deep.equal([])
    await client.query('BEGIN')
    await client.query("INSERT INTO orders VALUES ('o-1')")
    await w.outbox.add({ exchange: 'shop', type: 'order.placed', body: 2 }, client)
    expect(await w.rows()).to.deep.equal([])
    await commit()
    expect(await w.bodies()).to.deep.equal([2])
  })

  it('answers the ids, and shares one transaction id among the messages of a call', async () => {
    const one = await w.outbox.add({ queue: 'q', body: 1 }, client)
    expect(one.transactionId).to.equal(one.messageId)
    const many = await w.outbox.add(
      [
        { queue: 'q', body: 1, messageId: 'm-1' },
        { queue: 'q', body: 2 },
        { queue: 'q', body: 3, transactionId: 't-3' },
      ],
      client,
    )
    expect(many.map(({ transactionId }) => transactionId)).to.deep.equal(['m-1', 'm-1', 't-3'])
    const [given] = await w.outbox.add([{ queue: 'q', body: 1, transactionId: 't-1' }], client)
    expect(given?.transactionId).to.equal('t-1')
    expect(await w.outbox.add([], client)).to.deep.equal([])
    await commit()
    const rows = await w.rows()
    expect(rows.map((row) => row.message_id)).to.deep.equal([one, ...many, given].map((it) => it?.messageId))
  })

  it('says where the message goes, who sends it, and how', async () => {
    await w.open({ service: 'shop' }).add({ exchange: 'e', type: 't', routingKey: 'r', key: 'k', body: 1 }, client)
    await w.outbox.add({ queue: 'q', type: 't', key: 'k', body: Buffer.from([0, 255]) }, client)
    await commit()
    const [first, second] = await w.rows()
    expect(first).to.include({ exchange: 'e', routing_key: 'r', key: 'k', state: 'ready' })
    expect(JSON.parse(first!.properties)).to.include({ appId: 'shop', type: 't', contentType: 'application/json' })
    expect(second).to.include({ exchange: '', routing_key: 'q', key: 'k' })
    expect(JSON.parse(second!.properties)).to.include({ appId: 'orders', contentType: 'application/octet-stream' })
    expect(second!.body).to.deep.equal(Buffer.from([0, 255]))
  })

  it('counts a delay from the clock of the server', async () => {
    await w.outbox.add(
      [
        { queue: 'q', body: 1, delayMs: 90_000 },
        { queue: 'q', body: 1, delayMs: 0 },
        { queue: 'q', body: 1 },
      ],
      client,
    )
    await commit()
    const [delayed, ...others] = await w.rows()
    expect(delayed!.deliver_at!.getTime() - delayed!.created_at.getTime()).to.be.closeTo(90_000, 50)
    expect(others.map((row) => row.deliver_at)).to.deep.equal([null, null])
  })

  it('refuses what is wrong before any SQL, so that the transaction lives on', async () => {
    const wrong: [unknown, string][] = [
      [{ body: 1 }, 'exchange'],
      [{ body: 1, exchange: 'e', queue: 'q' }, 'exchange'],
      [{ body: 1, exchange: '' }, 'exchange'],
      [{ body: 1, queue: 'é'.repeat(128) }, 'queue'],
      [{ body: 1, queue: 7 }, 'queue'],
      [{ body: 1, queue: 'q', routingKey: 'r' }, 'routingKey'],
      [{ body: 1, queue: 'q\0' }, 'queue'],
      [{ body: 1, exchange: 'e', routingKey: 'a\0b' }, 'routingKey'],
      [{ body: 1, exchange: '\uD800' }, 'exchange'],
      [{ body: 1, queue: 'q', key: '\0' }, 'key'],
      [{ body: 1, queue: 'q', messageId: 'm\0' }, 'messageId'],
      [{ body: 1, queue: 'q', transactionId: 't\0' }, 'transactionId'],
      [{ body: 1, queue: 'q', delayMs: -1 }, 'delayMs'],
      [{ body: undefined, queue: 'q' }, 'body'],
      [{ body: Buffer.alloc(101), queue: 'q' }, 'body'],
      [{ body: 1, queue: 'q', headers: { transaction_id: 'x' } }, 'headers.transaction_id'],
      [{ body: 1, queue: 'q', headers: { big: 'x'.repeat(61_440) } }, 'headers'],
      [7, 'message'],
      [null, 'message'],
    ]
    const outbox = w.open({ maxBodyBytes: 100 })
    for (const [message, path] of wrong) {
      const error = await refusal(() => outbox.add(message as OutboxMessage, client))
      expect(error, JSON.stringify(message)).to.be.instanceOf(MessageInvalid)
      expect(error.path, error.message).to.equal(path)
    }
    const typo = await refusal(() => outbox.add({ body: 1, exhange: 'e' } as never, client))
    expect(typo.message).to.equal('unknown message field "exhange", did you mean "exchange"?')
    const third = await refusal(() =>
      outbox.add(
        [
          { queue: 'q', body: 1 },
          { queue: '', body: 2 },
        ],
        client,
      ),
    )
    expect(third.path).to.equal('messages[1].queue')
    expect(third.message).to.match(/^messages\[1\]: expected queue/)
    await outbox.add({ queue: 'q', body: 1 }, client)
    await commit()
    expect(await w.rows()).to.have.length(1)
  })

  it('checks bodies by the schema of their type, and writes what the schema makes of them', async () => {
    const schemas = { 'order.placed': z.object({ total: z.coerce.number() }) }
    const outbox = w.open({ schemas })
    await outbox.add(
      [
        { queue: 'q', type: 'order.placed', body: { total: '7' } },
        { queue: 'q', type: 'other', body: 'x' },
      ],
      client,
    )
    const error = await refusal(() =>
      outbox.add(
        [
          { queue: 'q', body: 1 },
          { queue: 'q', type: 'order.placed', body: { total: {} } },
        ],
        client,
      ),
    )
    expect(error.path).to.equal('messages[1].body.total')
    await commit()
    expect(await w.bodies()).to.deep.equal([{ total: 7 }, 'x'])
  })

  it('takes 10,000 messages in one call, and one of the largest size', async () => {
    const messages = Array.from({ length: 10_000 }, (_, i) => ({ queue: 'q', key: `k${i % 100}`, body: i }))
    const added = await w.outbox.add(messages, client)
    await commit()
    expect(new Set(added.map(({ messageId }) => messageId)).size).to.equal(10_000)
    const { rows } = await w.pool.query(`SELECT count(*) AS n FROM ${w.schema.name}.outbox WHERE placed`)
    expect(rows[0].n).to.equal('10000')
    await w.clear()
    await client.query('BEGIN')
    await w.outbox.add({ queue: 'q', body: Buffer.alloc(16 * 1024 * 1024, 1) }, client)
    await commit()
    expect((await w.rows())[0]!.body.equals(Buffer.alloc(16 * 1024 * 1024, 1))).to.equal(true)
  })

  it('explains a refused INSERT, says that the transaction is lost, and leaves it to the caller', async () => {
    const missing = await refusal(() => w.open({ schema: 'not_there' }).add({ queue: 'q', body: 1 }, client))
    expect(missing).to.be.instanceOf(SchemaMismatch)
    expect(missing.message)
      .to.contain('outbox "orders" (schema "not_there")')
      .and.to.contain('can now only be rolled back')
      .and.to.contain('surehop migrate')
    const later = await refusal(() => client.query('SELECT 1'))
    expect(later.message).to.contain('current transaction is aborted')
    await client.query('ROLLBACK')
    const role = unique('poor').replaceAll('-', '_')
    await w.pool.query(`CREATE ROLE ${role}`)
    await client.query('BEGIN')
    await client.query(`SET LOCAL ROLE ${role}`)
    const poor = await refusal(() => w.outbox.add({ queue: 'q', body: 1 }, client))
    expect(poor).to.be.instanceOf(PermissionRefused)
    await client.query('ROLLBACK')
    await w.pool.query(`DROP ROLE ${role}`)
  })

  it('sends nothing to the client of a caller but INSERT, where the driver knows of its transaction', async () => {
    const sent: string[] = []
    const spy = {
      getTransactionStatus: () => 'T',
      query: (sql: string, parameters?: unknown[]) => {
        sent.push(sql)
        return client.query(sql, parameters)
      },
    }
    for (let i = 0; i < 300; i++) await w.outbox.add({ queue: 'q', body: i }, spy)
    expect(sent).to.have.length(300)
    expect(sent.every((sql) => sql.startsWith('INSERT INTO '))).to.equal(true)
    expect(new Set(sent).size).to.equal(1)
    const [sql] = sent
    expect(sql).not.to.match(/\?|::/)
    expect(sql!.match(/\$\d+/g)).to.deep.equal(Array.from({ length: 11 }, (_, i) => `$${i + 1}`))
  })

  it('keeps the order of calls that are not awaited one by one', async () => {
    await Promise.all(Array.from({ length: 20 }, (_, i) => w.outbox.add({ queue: 'q', key: 'k', body: i }, client)))
    await commit()
    expect(await w.bodies('k')).to.deep.equal(Array.from({ length: 20 }, (_, i) => i))
  })

  it('refuses options it does not know, and guesses', () => {
    const wrong: [object, string][] = [
      [{ name: 'o', schma: 'x' }, 'did you mean "schema"?'],
      [{}, 'expected name'],
      [{ name: '' }, 'expected name'],
      [{ name: 'a\0b' }, 'expected name'],
      [{ name: 'o', schema: 'Not Lower' }, 'expected schema'],
      [{ name: 'o', pool: {} }, 'expected pool'],
      [{ name: 'o', maxBodyBytes: 0 }, 'expected maxBodyBytes'],
      [{ name: 'o', schemas: { t: {} } }, 'schemas: {"t"}'],
    ]
    for (const [options, text] of wrong)
      expect(() => new Outbox(options as OutboxOptions)).to.throw(InvalidOption, text)
  })

  it('refuses what is no client', async () => {
    for (const bad of [undefined, {}, 7]) {
      const error = await refusal(() => w.outbox.add({ queue: 'q', body: 1 }, bad as never))
      expect(error, String(bad)).to.be.instanceOf(InvalidOption)
    }
  })

  describe('outside a transaction', () => {
    async function warningsOf(run: (outbox: Outbox) => Promise<unknown>): Promise<string[]> {
      const name = unique('lonely')
      const warnings: string[] = []
      const end = onEvent('outbox.warning', (data) => data.outbox === name && warnings.push(data.warning))
      await run(w.open({ name })).finally(end)
      return warnings
    }
    const add = (outbox: Outbox, to: Parameters<Outbox['add']>[1]) => outbox.add({ queue: 'q', body: 1 }, to)
    const asFunction = (to: { query: PoolClient['query'] }) => (sql: string, parameters: unknown[]) =>
      to.query(sql, parameters)

    it('warns once, and writes all the same', async () => {
      await commit()
      const lenders = [() => w.pool, () => client, () => asFunction(client), () => asFunction(w.pool as never)]
      for (const lend of lenders) {
        const warnings = await warningsOf(async (outbox) => {
          for (let i = 0; i < 3; i++) await add(outbox, lend())
        })
        expect(warnings).to.have.length(1)
        expect(warnings[0]).to.contain('outside a transaction').and.to.contain('outbox.transaction()')
      }
      expect(await w.rows()).to.have.length(12)
    })

    it('does not warn inside one, whatever is lent', async () => {
      const warnings = await warningsOf(async (outbox) => {
        for (let i = 0; i < 3; i++) await add(outbox, client)
        for (let i = 0; i < 300; i++) await add(outbox, asFunction(client))
        await client.query('SAVEPOINT deeper')
        for (let i = 0; i < 300; i++) await add(outbox, asFunction(client))
        await commit()
        // BEGIN is not answered yet when add() is called.
        void client.query('BEGIN')
        await add(outbox, client)
      })
      expect(warnings).to.deep.equal([])
    })

    it('notices later, too, where the driver does not tell', async () => {
      const warnings = await warningsOf(async (outbox) => {
        await add(outbox, asFunction(client))
        await commit()
        for (let i = 0; i < 300; i++) await add(outbox, asFunction(client))
      })
      expect(warnings).to.have.length(1)
    })

    it('goes to the logger of the outbox, or to that of its relay, without a payload', async () => {
      await commit()
      const lines: object[] = []
      const nothing = () => {}
      const logger = { debug: nothing, info: nothing, error: nothing, warn: (fields: object) => lines.push(fields) }
      const own = w.open({ logger })
      await own.add({ queue: 'q', body: 'secret' }, w.pool)
      own.logTo(logger)
      expect(lines).to.have.length(1)
      const lent = w.open()
      const end = lent.logTo(logger)
      await lent.add({ queue: 'q', body: 'secret' }, w.pool)
      end()
      expect(lines).to.have.length(2)
      expect(JSON.stringify(lines)).not.to.contain('secret')
    })
  })

  describe('when the writer is killed', () => {
    for (const [moment, expected] of [
      ['before', []],
      ['after', [{ order: 'o-1' }]],
    ] as const)
      it(`${moment} its commit, leaves ${expected.length === 0 ? 'neither order nor message' : 'both'}`, async () => {
        await using child = startChild(new URL('./fixtures/add-writer.ts', import.meta.url), {
          args: [w.schema.url, w.schema.name, moment],
        })
        await child.next({ withinMs: 20_000 })
        await child.kill9()
        // The server notices that the connection is gone, and ends its transaction.
        await eventually(async () => {
          const { rows } = await w.pool.query(
            "SELECT count(*) AS n FROM pg_locks WHERE relation = CAST($1 AS regclass) AND mode = 'RowExclusiveLock'",
            [`${w.schema.name}.outbox`],
          )
          expect(rows[0].n).to.equal('0')
        })
        expect(await w.bodies()).to.deep.equal(expected)
        expect((await w.pool.query('SELECT * FROM orders')).rows).to.have.length(expected.length)
      })
  })

  describe('hints', () => {
    it('tell listeners of this process what was added, and what was committed', async () => {
      const outbox = w.open({ pool: w.pool })
      const heard: string[] = []
      const end = outbox.onAdded((hint) => heard.push(hint))
      await outbox.add({ queue: 'q', body: 1 }, client)
      await refusal(() => outbox.add({ queue: '', body: 1 }, client))
      outbox.wake()
      await outbox.transaction((tx) => outbox.add({ queue: 'q', body: 1 }, tx))
      end()
      outbox.wake()
      expect(heard).to.deep.equal(['added', 'committed', 'added', 'committed'])
    })

    it('reach other processes by NOTIFY, few for many rows, and none in the transaction of the caller', async () => {
      const listener = new Client({ connectionString: w.schema.url })
      await listener.connect()
      await listener.query('LISTEN surehop_outbox')
      const name = unique('hinted')
      const payload = `${w.schema.name}.${name}`
      const told: number[] = []
      listener.on('notification', (n) => n.payload === payload && told.push(performance.now()))
      const outbox = w.open({ name, pool: w.pool })
      const startedAt = performance.now()
      for (let i = 0; i < 500; i++) await outbox.add({ queue: 'q', body: i }, client)
      // Still open, and told: so it was not told by this transaction.
      await eventually(() => told.length > 0)
      await client.query('ROLLBACK')
      await outbox.transaction(async () => {})
      const count = told.length
      await eventually(() => told.length > count)
      const seconds = (performance.now() - startedAt) / 1_000
      expect(told.length).to.be.at.most(2 + 20 * seconds)
      await listener.end()
    })

    it('that cannot be sent harm nothing', async () => {
      let asked = 0
      const broken = {
        query: () => {
          asked++
          return Promise.reject(new Error('pool is gone'))
        },
        connect: () => Promise.reject(new Error('pool is gone')),
      }
      const outbox = w.open({ pool: broken })
      await outbox.add({ queue: 'q', body: 1 }, client)
      await eventually(() => asked > 0)
      await commit()
      expect(await w.rows()).to.have.length(1)
    })

    it('transaction() says so when Postgres rolled back, because a failure was swallowed', async () => {
      const outbox = w.open({ pool: w.pool })
      const heard: string[] = []
      outbox.onAdded((hint) => heard.push(hint))
      const error = await refusal(() =>
        outbox.transaction(async (tx) => {
          await outbox.add({ queue: 'q', body: 1 }, tx)
          await tx.query('SELECT 1 / 0').catch(() => {})
        }),
      )
      expect(error).to.be.instanceOf(CommitRefused)
      expect(await w.rows()).to.deep.equal([])
      expect(heard).to.deep.equal(['added'])
    })

    it('transaction() lets nothing through that is asked of its client after it has failed', async () => {
      const outbox = w.open({ pool: w.pool })
      let late!: () => Promise<Error>[]
      const error = await refusal(() =>
        outbox.transaction(async (tx: PoolClient) => {
          late = () => [
            refusal(() => tx.query("INSERT INTO orders VALUES ('o-8')")),
            refusal(() => outbox.add({ queue: 'q', body: 1 }, tx)),
            new Promise((resolve) => tx.query("INSERT INTO orders VALUES ('o-7')", resolve)),
          ]
          throw new Error('sold out')
        }),
      )
      expect(error.message).to.equal('sold out')
      for (const refused of await Promise.all(late())) expect(refused).to.be.instanceOf(Closed)
      expect(await w.rows()).to.deep.equal([])
      expect((await w.pool.query("SELECT 1 FROM orders WHERE id IN ('o-7', 'o-8')")).rows).to.deep.equal([])
    })

    it('transaction() rolls back what throws, and says that it needs a pool', async () => {
      const outbox = w.open({ pool: w.pool })
      const error = await refusal(() =>
        outbox.transaction(async (tx: PoolClient) => {
          await tx.query("INSERT INTO orders VALUES ('o-9')")
          await outbox.add({ queue: 'q', body: 1 }, tx)
          throw new Error('sold out')
        }),
      )
      expect(error.message).to.equal('sold out')
      expect(await w.rows()).to.deep.equal([])
      expect(await refusal(() => w.outbox.transaction(async () => {}))).to.be.instanceOf(InvalidOption)
    })
  })
})

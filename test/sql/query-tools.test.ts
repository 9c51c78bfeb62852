import { expect } from 'chai'
import { type SQL, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { type Knex, knex } from 'knex'
import { CompiledQuery, Kysely, PostgresDialect, type Transaction } from 'kysely'
import { Pool, type PoolClient } from 'pg'
import { DataSource, type EntityManager } from 'typeorm'
import { type LentClient, migrate, SchemaMismatch, type SqlFunction } from '../../lib/index.ts'
import { Outbox } from '../../lib/outbox/outbox.ts'
import { inTransaction, runOn } from '../../lib/sql/client.ts'
import { freshSchema, type Schema } from '../support/database.ts'

// As in the README: what to lend to Surehop inside a transaction of each tool.

const ofKnex =
  (trx: Knex.Transaction): SqlFunction =>
  (text, parameters) =>
    trx.raw(text.replace(/\$\d+/g, '?'), parameters as Knex.Value[])

const ofKysely =
  <Tables>(trx: Transaction<Tables>): SqlFunction =>
  (text, parameters) =>
    trx.executeQuery(CompiledQuery.raw(text, parameters))

const ofDrizzle =
  (tx: { execute(query: SQL): PromiseLike<{ rows: unknown[] }> }): SqlFunction =>
  (text, parameters) => {
    const [first = '', ...parts] = text.split(/\$\d+/).map((part) => sql.raw(part))
    return tx.execute(sql.join([first, ...parts.flatMap((part, i) => [sql.param(parameters[i]), part])]))
  }

const ofTypeOrm =
  (manager: EntityManager): SqlFunction =>
  async (text, parameters) =>
    (await manager.queryRunner!.query(text, parameters, true)).records

/** A tool, as the tests need it. */
interface Tool {
  /** Runs work in a transaction of the tool: the tool's own way to insert, and what is lent. */
  transaction<T>(work: (own: (id: string) => Promise<unknown>, lent: LentClient) => Promise<T>): Promise<T>
  close(): Promise<unknown>
}

const INSERT = 'INSERT INTO orders (id) VALUES '

const tools: Readonly<Record<string, (url: string) => Promise<Tool>>> = {
  pg: async (url) => {
    const pool = new Pool({ connectionString: url })
    return {
      transaction: (work) =>
        inTransaction(pool, (client) => work((id) => client.query(`${INSERT} ($1)`, [id]), client as PoolClient)),
      close: () => pool.end(),
    }
  },
  Knex: async (url) => {
    const tool = knex({ client: 'pg', connection: url })
    return {
      transaction: (work) => tool.transaction((trx) => work(async (id) => trx('orders').insert({ id }), ofKnex(trx))),
      close: () => tool.destroy(),
    }
  },
  Kysely: async (url) => {
    const tool = new Kysely<{ orders: { id: string } }>({
      dialect: new PostgresDialect({ pool: new Pool({ connectionString: url }) }),
    })
    return {
      transaction: (work) =>
        tool
          .transaction()
          .execute((trx) => work((id) => trx.insertInto('orders').values({ id }).execute(), ofKysely(trx))),
      close: () => tool.destroy(),
    }
  },
  Drizzle: async (url) => {
    const pool = new Pool({ connectionString: url })
    return {
      transaction: (work) =>
        drizzle(pool).transaction((tx) =>
          work(async (id) => tx.execute(sql`INSERT INTO orders (id) VALUES (${id})`), ofDrizzle(tx)),
        ),
      close: () => pool.end(),
    }
  },
  TypeORM: async (url) => {
    const tool = await new DataSource({ type: 'postgres', url }).initialize()
    return {
      transaction: (work) =>
        tool.transaction((manager) => work((id) => manager.query(`${INSERT} ($1)`, [id]), ofTypeOrm(manager))),
      close: () => tool.destroy(),
    }
  },
}

/** Texts that a tool might take for a placeholder of its own, and bytes that are no text. */
const TRAPS = "is it ? or ?? or :name or $1 or \\? or ::text or 'it''s'"
const BYTES = Buffer.from([0, 0xff, 0x5c, 0x78, 0x27, 0x80])

for (const [name, open] of Object.entries(tools))
  describe(`a transaction of ${name}`, () => {
    let schema: Schema
    let tool: Tool
    let outbox: Outbox
    const message = { queue: 'orders', key: TRAPS, headers: { note: TRAPS }, body: BYTES }

    before(async () => {
      schema = await freshSchema()
      await migrate(schema.pool, { schema: schema.name })
      await schema.pool.query('CREATE TABLE orders (id text PRIMARY KEY)')
      tool = await open(schema.url)
    })
    beforeEach(async () => {
      outbox = new Outbox({ name: 'shop', schema: schema.name })
      await schema.pool.query('TRUNCATE orders, outbox')
    })
    after(async () => {
      await tool?.close()
      await schema.close()
    })

    const stored = async () => {
      const { rows } = await schema.pool.query(
        'SELECT (SELECT count(*) FROM orders) AS orders, count(*) AS messages FROM outbox',
      )
      return { orders: Number(rows[0].orders), messages: Number(rows[0].messages) }
    }

    it('stores a message with what it tells about: nothing before the commit, both after it, as they were given', async () => {
      await tool.transaction(async (insert, lent) => {
        await insert('a')
        await outbox.add(message, lent)
        await outbox.add([message, { queue: 'orders', body: { total: 1 }, delayMs: 60_000 }], lent)
        expect(await stored()).to.deep.equal({ orders: 0, messages: 0 })
      })
      expect(await stored()).to.deep.equal({ orders: 1, messages: 3 })
      const { rows } = await schema.pool.query('SELECT key, body, properties, placed FROM outbox ORDER BY body DESC')
      expect(rows[1]).to.include({ key: TRAPS, placed: true })
      expect(rows[1].body).to.deep.equal(BYTES)
      expect(rows[1].properties).to.contain(JSON.stringify(TRAPS))
    })

    it('stores neither when it is rolled back', async () => {
      const work = tool.transaction(async (insert, lent) => {
        await insert('a')
        await outbox.add(message, lent)
        throw new Error('changed my mind')
      })
      expect(await work.catch((error: Error) => error.message)).to.equal('changed my mind')
      expect(await stored()).to.deep.equal({ orders: 0, messages: 0 })
    })

    it('stores neither when a statement of ours fails, and tells why', async () => {
      const elsewhere = new Outbox({ name: 'shop', schema: 'nowhere' })
      const work = tool.transaction(async (insert, lent) => {
        await insert('a')
        await elsewhere.add(message, lent)
      })
      const error = await work.catch((thrown: unknown) => thrown)
      expect(error).to.be.instanceOf(SchemaMismatch).with.property('message').that.contains('"nowhere.outbox"')
      expect(await stored()).to.deep.equal({ orders: 0, messages: 0 })
    })

    it('takes parameters of every kind as they are, and answers with the rows of every kind of statement', async () => {
      const given = [TRAPS, '', null, true, false, 7, -1.5, BYTES, ['a', TRAPS], [1, 2], new Date(0)]
      const types = 'text text text boolean boolean integer float8 bytea text[] integer[] timestamptz'.split(' ')
      const casts = types.map((type, i) => `CAST($${i + 1} AS ${type}) AS c${i}`)
      await tool.transaction(async (insert, lent) => {
        const [row] = await runOn(lent, `SELECT ${casts.join(', ')}`, given)
        expect(Object.values(row!).slice(0, -1)).to.deep.equal(given.slice(0, -1))
        expect(new Date(row!['c10'] as string)).to.deep.equal(new Date(0))
        expect(await runOn(lent, 'SELECT id FROM orders', [])).to.deep.equal([])
        await insert('a')
        expect(await runOn(lent, 'INSERT INTO orders VALUES ($1) RETURNING id', ['b'])).to.deep.equal([{ id: 'b' }])
        const update = 'UPDATE orders SET id = $1 WHERE id = $2 RETURNING id'
        expect(await runOn(lent, update, ['c', 'b'])).to.deep.equal([{ id: 'c' }])
        expect(await runOn(lent, 'DELETE FROM orders WHERE id = $1 RETURNING id', ['a'])).to.deep.equal([{ id: 'a' }])
      })
      expect((await schema.pool.query('SELECT id FROM orders')).rows).to.deep.equal([{ id: 'c' }])
    })
  })

import { expect } from 'chai'
import { sql as drizzleSql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import knexOf from 'knex'
import { CompiledQuery, Kysely, PostgresDialect } from 'kysely'
import { DataSource } from 'typeorm'
import type { LentClient } from '../../lib/index.ts'
import { unpacked } from '../../lib/outbox/packing.ts'
import { Writing } from './writing.ts'

/** Each gives `work` a client in a transaction of its own, which is rolled back if `work` throws. */
type Tool = (w: Writing, work: (client: LentClient) => Promise<unknown>) => Promise<unknown>

const tools: Record<string, Tool> = {
  knex: async (w, work) => {
    const knex = knexOf({ client: 'pg', connection: w.schema.url })
    const run = knex.transaction((trx) =>
      work((sql, parameters) => trx.raw(sql.replace(/\$\d+/g, '?'), parameters as [])),
    )
    return run.finally(() => knex.destroy())
  },
  kysely: async (w, work) => {
    const db = new Kysely<object>({ dialect: new PostgresDialect({ pool: w.pool }) })
    return db
      .transaction()
      .execute((trx) => work((sql, parameters) => trx.executeQuery(CompiledQuery.raw(sql, parameters))))
  },
  drizzle: async (w, work) => {
    const db = drizzle({ client: w.pool })
    return db.transaction((tx) =>
      work((sql, parameters) => {
        const [first = '', ...rest] = sql.split(/\$\d+/)
        const parts = rest.map((text, i) => drizzleSql`${parameters[i]}${drizzleSql.raw(text)}`)
        return tx.execute(drizzleSql.join([drizzleSql.raw(first), ...parts]))
      }),
    )
  },
  typeorm: async (w, work) => {
    const source = await new DataSource({ type: 'postgres', url: w.schema.url }).initialize()
    return source.transaction((manager) => work(manager)).finally(() => source.destroy())
  },
}

describe('adding through query tools', function () {
  this.timeout(60_000)
  let w: Writing
  before(async () => {
    w = await Writing.open()
  })
  after(() => w.close())

  for (const [name, tool] of Object.entries(tools)) {
    it(`works in a transaction of ${name}, bytes and delays too, and goes with it`, async () => {
      const warnings: object[] = []
      const nothing = () => {}
      const logger = { debug: nothing, info: nothing, error: nothing, warn: (fields: object) => warnings.push(fields) }
      const outbox = w.open({ logger })
      const body = Buffer.from([0, 1, 0x3f, 0x5c, 255])
      const headers = { text: "what? it's :here $1", big: 5n }
      await tool(w, (client) =>
        outbox.add(
          [
            { queue: 'q?', body, key: 'k:1', delayMs: 1_500.5, headers },
            { exchange: 'e', type: 't', body: { a: [1, null] } },
          ],
          client,
        ),
      )
      await tool(w, async (client) => {
        await outbox.add({ queue: 'q', body: 'gone' }, client)
        throw new Error('rolled back')
      }).catch((error: Error) => expect(error.message).to.equal('rolled back'))
      const rows = await w.rows()
      await w.clear()
      expect(rows).to.have.length(2)
      const keyed = rows.find(({ key }) => key === 'k:1')!
      expect(keyed).to.include({ routing_key: 'q?', exchange: '' })
      expect(keyed.body.equals(body)).to.equal(true)
      expect(keyed.deliver_at!.getTime() - keyed.created_at.getTime()).to.be.within(1_490, 1_510)
      expect(unpacked(keyed).properties.headers).to.deep.include({ ...headers, big: { '!': 'int64', value: 5n } })
      expect(rows.find(({ key }) => key === null)).to.deep.include({
        exchange: 'e',
        routing_key: 't',
        deliver_at: null,
      })
      expect(warnings).to.deep.equal([])
    })
  }
})

// Rows that no relay would ever take: how they are found, and what happens beside that.

import { expect } from 'chai'
import { parkStrays } from '../../lib/outbox/relay-strays.ts'
import { eventually } from '../support/eventually.ts'
import { Relaying } from './relaying.ts'

describe('looking for rows that no relay would take', function () {
  this.timeout(120_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  const ask = (sql: string, parameters: unknown[]) => r.sql(sql, parameters)

  it('never reads the whole table, whatever the statistics say', async () => {
    const fill = (state: string, times: string) =>
      r.sql(
        `INSERT INTO {schema}.outbox (name, shard, placed, state, message_id, transaction_id, key, exchange, routing_key, properties, body, not_before)
         SELECT $1, i % 64, true, $2, 'm' || i, 't', 'k' || i % 500, '', 'q', '{}', 'a longer body', ${times} FROM generate_series(1, 10000) i`,
        [r.name, state],
      )
    await fill('ready', 'NULL')
    await fill('held', "CASE WHEN i % 3 = 0 THEN 'infinity' ELSE now() + interval '1 hour' END")
    await r.sql('ANALYZE {schema}.outbox')
    const plan: string[] = []
    await parkStrays(async (sql, parameters) => {
      plan.push(
        ...(await r.sql<{ 'QUERY PLAN': string }>(`EXPLAIN ${sql}`, parameters)).map((row) => row['QUERY PLAN']),
      )
      return []
    }, r.name)
    expect(plan.join('\n')).contain('outbox_due').not.contain('Seq Scan on outbox')
  })

  it('leaves alone a row that somebody put right in that moment', async () => {
    const [first, second] = await r.add({ queue: 'q', body: 1 }, { queue: 'q', body: 2 })
    await r.sql('UPDATE {schema}.outbox SET shard = 64')
    // The first row keeps the statement waiting, until the second has been put right.
    await r.sql(`CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF NEW.state = 'parked' AND NEW.message_id = '${first}' THEN PERFORM pg_advisory_xact_lock(7, hashtext('{schema}')); END IF;
      RETURN NEW; END $$`)
    await r.sql('CREATE TRIGGER wait BEFORE UPDATE ON {schema}.outbox FOR EACH ROW EXECUTE FUNCTION {schema}.wait()')
    let parking: Promise<unknown> | undefined
    await r.committed(async (client) => {
      await client.query('SELECT pg_advisory_xact_lock(7, hashtext($1))', [r.schema.name])
      parking = parkStrays(ask, r.name)
      await eventually(async () => {
        const waits = await r.sql(
          "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND NOT granted AND objid = CAST(CAST(hashtext($1) AS bit(32)) AS bigint)",
          [r.schema.name],
        )
        expect(waits).length(1)
      })
      await r.sql('UPDATE {schema}.outbox SET shard = 5 WHERE message_id = $1', [second])
    })
    expect(await parking).length(1)
    expect(await r.states()).deep.equal(['parked', 'ready'])
  })

  it('tells of what was parked although the rest of its key cannot be seen to', async () => {
    const queue = await r.queue()
    await r.add({ queue, key: 'a', body: 1 }, { queue, key: 'a', body: 2 })
    await r.sql("UPDATE {schema}.outbox SET state = 'held', not_before = 'infinity'")
    await r.sql("UPDATE {schema}.outbox SET not_before = '294276-01-01' WHERE convert_from(body, 'UTF8') = '1'")
    const arrivals = await r.arrivals(queue)
    const parked = r.event('outbox.parked')
    await r.committed(async (client) => {
      await client.query(`SELECT 1 FROM ${r.schema.name}.outbox WHERE convert_from(body, 'UTF8') = '2' FOR UPDATE`)
      await r.relay({ pollMs: 20 })
      expect((await parked).error.message).contain('expected not_before to be within a year')
    })
    await arrivals.count(1)
  })
})

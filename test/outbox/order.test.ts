import { expect } from 'chai'
import fc from 'fast-check'
import type { PoolClient } from 'pg'
import { Writing } from './writing.ts'

/** One step of a transaction. `touch` takes the lock of the key's row in a table of the application, and holds it to the end. */
type Step =
  | { readonly do: 'add' | 'touch'; readonly key: string }
  | { readonly do: 'savepoint' | 'back' | 'commit' | 'rollback' }

const add = (key = 'k'): Step => ({ do: 'add', key })
const touch = (key = 'k'): Step => ({ do: 'touch', key })
const commit: Step = { do: 'commit' }
const rollback: Step = { do: 'rollback' }
const savepoint: Step = { do: 'savepoint' }
const back: Step = { do: 'back' }

/** Every order in which these lists of steps can be worked off; each answer says whose step is next. */
function* interleavings(lengths: readonly number[]): Generator<number[]> {
  if (lengths.every((length) => length === 0)) yield []
  for (const [i, length] of lengths.entries()) {
    if (length === 0) continue
    for (const rest of interleavings(lengths.map((l, j) => (j === i ? l - 1 : l)))) yield [i, ...rest]
  }
}

/** Where nobody has to wait for the row lock of another: other orders cannot happen. */
function possible(scripts: readonly (readonly Step[])[], order: readonly number[]): boolean {
  const at = scripts.map(() => 0)
  const holder = new Map<string, number>()
  return order.every((who) => {
    const step = scripts[who]![at[who]!++]!
    if (step.do === 'touch') {
      if ((holder.get(step.key) ?? who) !== who) return false
      holder.set(step.key, who)
    }
    if (step.do === 'commit' || step.do === 'rollback')
      for (const [key, owner] of holder) if (owner === who) holder.delete(key)
    return true
  })
}

describe('the order of the outbox', function () {
  this.timeout(120_000)
  let w: Writing
  let clients: PoolClient[]

  before(async () => {
    w = await Writing.open()
    await w.pool.query(`CREATE TABLE counters (key text PRIMARY KEY, value int NOT NULL)`)
    await w.pool.query(`INSERT INTO counters SELECT k, 0 FROM unnest(ARRAY['k', 'a', 'b', 'c']) AS k`)
    clients = await Promise.all(Array.from({ length: 3 }, () => w.pool.connect()))
    // What is proved does not depend on the disk.
    for (const client of clients) await client.query('SET synchronous_commit = off')
  })
  after(async () => {
    for (const client of clients) client.release()
    await w.close()
  })

  /** Works the steps off in this order; answers what should be there, key by key. */
  async function play(scripts: readonly (readonly Step[])[], order: readonly number[]): Promise<Map<string, string[]>> {
    const at = scripts.map(() => 0)
    const open = scripts.map((): [string, string][] => [])
    const saved = scripts.map(() => 0)
    const expected = new Map<string, string[]>()
    for (const who of order) {
      const client = clients[who]!
      const n = at[who]!++
      const step = scripts[who]![n]!
      if (n === 0) await client.query('BEGIN')
      if (step.do === 'add') {
        const body = `${who}.${n}`
        await w.outbox.add({ queue: 'q', key: step.key, body }, client)
        open[who]!.push([step.key, body])
      } else if (step.do === 'touch') {
        await client.query('UPDATE counters SET value = value + 1 WHERE key = $1', [step.key])
      } else if (step.do === 'savepoint') {
        await client.query('SAVEPOINT here')
        saved[who] = open[who]!.length
      } else if (step.do === 'back') {
        await client.query('ROLLBACK TO SAVEPOINT here')
        open[who]!.length = saved[who]!
      } else {
        await client.query(step.do)
        if (step.do === 'commit')
          for (const [key, body] of open[who]!) expected.set(key, [...(expected.get(key) ?? []), body])
      }
    }
    return expected
  }

  async function holdsInAllOrders(...scripts: (readonly Step[])[]): Promise<number> {
    let played = 0
    for (const order of interleavings(scripts.map((script) => script.length))) {
      if (!possible(scripts, order)) continue
      const expected = await play(scripts, order)
      for (const key of ['k', 'a', 'b', 'c'])
        expect(await w.bodies(key), `key ${key}, order ${order}`).to.deep.equal(expected.get(key) ?? [])
      await w.clear()
      played++
    }
    return played
  }

  it('is the order of commits, however two transactions interleave', async () => {
    const played = await holdsInAllOrders([add(), add(), commit], [add(), add(), commit])
    expect(played).to.equal(20)
  })

  it('is the order of commits, whether rows are locked before or after the message is added', async () => {
    const scripts = [
      [touch(), add(), commit],
      [add(), touch(), commit],
    ]
    let played = 0
    for (const one of scripts) for (const other of scripts) played += await holdsInAllOrders(one, other)
    // A lock taken leaves few orders: half of them end before the other begins.
    expect(played).to.be.greaterThan(15)
  })

  it('is the order of commits of three transactions, of which each may roll back', async () => {
    for (const ends of [
      [commit, commit, commit],
      [commit, rollback, commit],
      [rollback, commit, commit],
    ])
      expect(await holdsInAllOrders(...ends.map((end) => [add(), end]))).to.equal(90)
  })

  it('keeps the rows after a savepoint that was rolled back in their place, and those before it', async () => {
    await holdsInAllOrders([add(), savepoint, add(), back, add(), commit], [add(), commit])
    await holdsInAllOrders([savepoint, add(), back, commit], [add(), commit], [add(), commit])
  })

  it('is the order of commits for each key of transactions that use them crosswise', async () => {
    await holdsInAllOrders([add('a'), add('b'), commit], [add('b'), add('a'), commit])
    await holdsInAllOrders([add('a'), add('b'), commit], [add('b'), add('c'), commit], [add('c'), commit])
  })

  it('never deadlocks: commits of transactions with keys in crossing orders, at the same moment', async () => {
    const keys = Array.from({ length: 30 }, (_, i) => `x${i}`)
    const orders = fc.sample(fc.shuffledSubarray(keys, { minLength: 10 }), { numRuns: 180, seed: 7 })
    for (let round = 0; round < orders.length; round += 3) {
      await Promise.all(
        clients.map(async (client, i) => {
          await client.query('BEGIN')
          for (const key of orders[round + i]!) await w.outbox.add({ queue: 'q', key, body: round }, client)
        }),
      )
      await Promise.all(clients.map((client) => client.query('COMMIT')))
    }
    expect(await w.bodies()).to.have.length(orders.flat().length)
    await w.clear()
  })

  it('is the order of the effects: 20 writers, 50 keys, each counts its key up before or after it adds', async () => {
    await w.pool.query(`INSERT INTO counters SELECT 'key-' || i, 0 FROM generate_series(0, 49) AS i`)
    await w.pool.query('CREATE TABLE effects (key text, value int, tag text)')
    const work = fc.record({ key: fc.nat(49), addsFirst: fc.boolean(), fails: fc.nat(9) })
    const plans = fc.sample(fc.array(work, { minLength: 40, maxLength: 40 }), { numRuns: 20, seed: 11 })
    await Promise.all(plans.map((plan, writer) => write(plan, writer)))
    const { rows } = await w.pool.query('SELECT key, array_agg(tag ORDER BY value) AS tags FROM effects GROUP BY key')
    for (const { key, tags } of rows) expect(await w.bodies(key), key).to.deep.equal(tags)
    expect(await w.bodies()).to.have.length(rows.flatMap(({ tags }) => tags).length)
    expect(rows).to.have.length(50)
    await w.clear()

    async function write(plan: (typeof plans)[number], writer: number): Promise<void> {
      const client = await w.pool.connect()
      await client.query('SET synchronous_commit = off')
      for (const [i, { key, addsFirst, fails }] of plan.entries()) {
        const [name, tag] = [`key-${key}`, `${writer}.${i}`]
        const add = () => w.outbox.add({ queue: 'q', key: name, body: tag }, client)
        await client.query('BEGIN')
        if (addsFirst) await add()
        await client.query(
          `WITH counted AS (UPDATE counters SET value = value + 1 WHERE key = $1 RETURNING value)
           INSERT INTO effects SELECT $1, value, $2 FROM counted`,
          [name, tag],
        )
        if (!addsFirst) await add()
        await client.query(fails === 0 ? 'ROLLBACK' : 'COMMIT')
      }
      client.release()
    }
  })

  it('is the order of the array within one add, also where it takes more than one statement', async () => {
    const messages = Array.from({ length: 1_203 }, (_, i) => ({ queue: 'q', body: i, ...(i % 3 ? { key: 'k' } : {}) }))
    await w.committed((client) => w.outbox.add(messages, client))
    const count = (rest: (i: number) => boolean) => messages.map(({ body }) => body).filter(rest)
    expect(await w.bodies('k')).to.deep.equal(count((i) => i % 3 !== 0))
    const rows = await w.rows()
    const plain = rows.filter(({ key }) => key === null).map(({ body }) => JSON.parse(String(body)))
    expect(plain).to.deep.equal(count((i) => i % 3 === 0))
    expect(rows.every(({ placed }) => placed)).to.equal(true)
    await w.clear()
  })

  it('costs a session the same at commit when a backlog has grown since its first', async () => {
    const client = await w.pool.connect()
    const add = () => w.outbox.add({ queue: 'q', key: 'k', body: 1 }, client)
    for (let n = 0; n < 20; n++) {
      await client.query('BEGIN')
      await add()
      await client.query('COMMIT')
      // So that its plans are made for a table of a page or two.
      if (n === 5) await w.pool.query(`VACUUM ANALYZE ${w.schema.name}.outbox`)
    }
    await w.committed((other) =>
      w.outbox.add(
        Array.from({ length: 3_000 }, (_, body) => ({ queue: 'q', body })),
        other,
      ),
    )
    const read = async () => {
      const { rows } = await client.query(
        `SELECT CAST(seq_tup_read + idx_tup_fetch AS integer) AS read FROM pg_stat_xact_user_tables WHERE schemaname = $1 AND relname = 'outbox'`,
        [w.schema.name],
      )
      return Number(rows[0].read)
    }
    await client.query('BEGIN')
    await add()
    const before = await read()
    await client.query('SET CONSTRAINTS ALL IMMEDIATE')
    const after = await read()
    await client.query('ROLLBACK')
    client.release()
    expect(after - before).to.be.within(1, 50)
    await w.clear()
  })
})

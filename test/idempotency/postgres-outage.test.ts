// The inbox while Postgres is away, frozen, restarted or not set up; and two consumers that live through a restart.

import { expect } from 'chai'
import { Pool } from 'pg'
import { v7 } from 'uuid'
import type { Claim, Scope } from '../../lib/idempotency/idempotency.ts'
import { SWEEP } from '../../lib/idempotency/postgres-statements.ts'
import { fixed, Outbox, PostgresIdempotencyStore, SchemaMismatch, StoreUnavailable } from '../../lib/index.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { inSchema } from '../../lib/sql/schema.ts'
import { SWEEP as SWEEP_DECISIONS } from '../../lib/transactional-message/postgres-statements.ts'
import { closeAll, connected, nothingLeft, Tally } from '../consumer/setup.ts'
import { eventually, latch } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { type Server, startPostgres } from '../support/services.ts'
import { uniqueQueue } from '../support/unique.ts'

const scope: Scope = { name: 'outage', retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
const claimOf = (id: string = v7()): Claim => ({ id, digest: undefined, generation: 0, attempt: 1, sequence: 1 })

/** What a call was refused with, and how long that took. */
async function refusal(call: Promise<unknown>): Promise<{ error: StoreUnavailable; tookMs: number }> {
  const began = performance.now()
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).to.be.instanceOf(StoreUnavailable)
  return { error: error as StoreUnavailable, tookMs: performance.now() - began }
}

describe('the Postgres inbox without a certain answer', function () {
  this.timeout(120_000)
  let server: Server
  let pool: Pool
  let store: PostgresIdempotencyStore
  before(async () => {
    server = await startPostgres()
    pool = new Pool({ connectionString: server.url }).on('error', () => {})
    await migrate(pool)
    await pool.query('CREATE TABLE effects (id text NOT NULL)')
  })
  beforeEach(() => {
    store = new PostgresIdempotencyStore({ pool, statementTimeoutMs: 500 })
  })
  afterEach(async () => {
    await closeAll()
    await store.close()
  })
  after(async () => {
    await pool.end()
    await server.close()
  })

  it('says that nothing listens, where it is so, and no password', async () => {
    const nowhere = new Pool({ connectionString: `postgres://user:s3cret@127.0.0.1:${await freePort()}/x` })
    const { error } = await refusal(new PostgresIdempotencyStore({ pool: nowhere }).claim(scope, 'a', [claimOf()]))
    expect(error.message).to.match(/nothing listens there.*No handler runs/)
    expect(JSON.stringify([error, error.cause])).not.to.contain('s3cret')
    await nowhere.end()
  })

  it('gives up on a frozen Postgres within seconds, and goes on by itself when it thaws', async () => {
    const claim = claimOf()
    await store.claim(scope, 'a', [claimOf()])
    await server.freeze()
    for (let n = 0; n < 3; n++) expect((await refusal(store.claim(scope, 'a', [claim]))).tookMs).to.be.lessThan(8_000)
    await server.thaw()
    const [answer] = await eventually(() => store.claim(scope, 'a', [claim]))
    expect(answer).to.include({ status: 'acquired', starts: 1 })
  })

  it('refuses while Postgres is down, remembers over a kill -9, and goes on by itself', async () => {
    const claim = claimOf()
    const [first] = await store.claim(scope, 'a', [claim])
    await server.kill9()
    for (let n = 0; n < 3; n++) await refusal(store.claim(scope, 'a', [claim]))
    await server.start()
    const [again] = await eventually(() => store.claim(scope, 'a', [claim]))
    expect(again).to.deep.equal(first)
  })

  it('tells an owner that the inbox came back empty', async () => {
    expect(await store.renew(scope, 'a')).to.equal('held')
    await pool.query('TRUNCATE surehop.inbox, surehop.inbox_owners')
    expect(await store.renew(scope, 'a')).to.equal('lapsed')
    expect(await store.renew(scope, 'a')).to.equal('held')
  })

  it('waits no longer than its time for a lock, and is not in the way of others meanwhile', async () => {
    const [held, free] = [claimOf(), claimOf()]
    await store.claim(scope, 'a', [held])
    const client = await pool.connect()
    await client.query('BEGIN')
    await client.query('SELECT 1 FROM surehop.inbox WHERE id = $1 FOR UPDATE', [held.id])
    const { error, tookMs } = await refusal(store.claim(scope, 'b', [held]))
    expect([error.message, tookMs < 2_000]).to.satisfy(([text]: string[]) => text!.includes('time limit'))
    expect((await store.claim(scope, 'b', [free]))[0]!.status).to.equal('acquired')
    await client.query('ROLLBACK')
    client.release()
    expect((await store.claim(scope, 'b', [held]))[0]!.status).to.equal('leased')
  })

  it('gives the locks of a process back that stopped in the middle of a claim', async () => {
    const [claim, stopped] = [claimOf(), latch()]
    const real = await pool.connect()
    real.on('error', () => {})
    // As a frozen process: it sends nothing more, and gives nothing back.
    const query = (sql: string, parameters?: unknown[]) => {
      if (!sql.startsWith('WITH written')) return real.query(sql, parameters)
      stopped.resolve()
      return new Promise<never>(() => {})
    }
    const frozen = { query, connect: async () => ({ query, release: () => {} }) }
    const ended = refusal(
      new PostgresIdempotencyStore({ pool: frozen, statementTimeoutMs: 400 }).claim(scope, 'z', [claim]),
    )
    await stopped.promise
    const [answer] = await eventually(() => store.claim(scope, 'b', [claim]))
    expect(answer!.status).to.equal('acquired')
    await ended
    real.release(true)
  })

  it('says that all clients of the pool are taken', async () => {
    const small = new Pool({ connectionString: server.url, max: 1 })
    const taken = await small.connect()
    const starving = new PostgresIdempotencyStore({ pool: small, statementTimeoutMs: 200 })
    const { error, tookMs } = await refusal(starving.renew(scope, 'a'))
    expect([error.message.includes('no free connection'), tookMs < 1_500]).to.deep.equal([true, true])
    taken.release()
    expect(await eventually(() => starving.renew(scope, 'a'))).to.equal('held')
    await small.end()
  })

  it('gives clients back as they were, and leaves the pool open', async () => {
    const one = new Pool({ connectionString: server.url, max: 1 }).on('error', () => {})
    const borrowing = new PostgresIdempotencyStore({ pool: one })
    await borrowing.claim(scope, 'a', [claimOf()])
    await borrowing.close()
    const { rows } = await one.query(
      "SELECT current_setting('statement_timeout') AS one, current_setting('idle_in_transaction_session_timeout') AS two",
    )
    expect(rows).to.deep.equal([{ one: '0', two: '0' }])
    await one.end()
  })

  it('forgets expired records and owners long gone, bit by bit, as it is used', async () => {
    const brief = { ...scope, name: 'brief', retentionMs: 1 }
    const ids = Array.from({ length: 200 }, () => claimOf())
    await store.claim(brief, 'a', ids)
    await pool.query("INSERT INTO surehop.inbox_owners VALUES ('brief', 'old', now() - interval '2 days', now())")
    await eventually(async () => {
      await store.claim(scope, 'a', [claimOf()])
      const { rows } = await pool.query(
        "SELECT (SELECT count(*) FROM surehop.inbox WHERE scope = 'brief') + (SELECT count(*) FROM surehop.inbox_owners WHERE owner = 'old') AS left",
      )
      expect(rows[0].left).to.equal('0')
    })
  })

  it('reads no more than it forgets, however much it remembers', async () => {
    const remembered = 20_000
    await pool.query(
      `INSERT INTO surehop.inbox (scope, id, state, retention, expires_at)
       SELECT 'much', n, 'completed', interval '1 day', now() + interval '1 day' FROM generate_series(1, ${remembered}) n`,
    )
    await pool.query(
      `INSERT INTO surehop.decisions (name, transaction_id, expires_at)
       SELECT 'much', n, now() + interval '1 day' FROM generate_series(1, ${remembered}) n`,
    )
    await pool.query('ANALYZE surehop.inbox, surehop.decisions')
    for (const sweep of [SWEEP, SWEEP_DECISIONS]) {
      const { rows } = await pool.query(`EXPLAIN ANALYZE ${inSchema('surehop', sweep.replace('$1', '64'))}`)
      const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
      expect(plan).to.match(/Index Cond: \(expires_at </)
      expect(plan).not.to.contain('Rows Removed by Filter')
    }
  })

  it('answers a claim also when what has expired cannot be removed in time', async () => {
    const expired = { ...scope, name: 'stays', retentionMs: 1 }
    await store.claim(expired, 'a', [claimOf()])
    await pool.query(`CREATE SEQUENCE tries;
      CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('tries'); PERFORM pg_sleep(60); RETURN OLD; END $$;
      CREATE TRIGGER slowly BEFORE DELETE ON surehop.inbox FOR EACH ROW WHEN (OLD.scope = 'stays') EXECUTE FUNCTION slowly()`)
    const answers = new Set<unknown>()
    await eventually(async () => {
      const [answer] = await store.claim(scope, 'a', [claimOf()]).catch((error: Error) => [{ status: error.message }])
      answers.add(answer!.status)
      const { rows } = await pool.query('SELECT is_called FROM tries')
      expect(rows).to.deep.equal([{ is_called: true }])
    })
    expect([...answers]).to.deep.equal(['acquired'])
    await pool.query('DROP FUNCTION slowly CASCADE; DROP SEQUENCE tries')
  })

  describe('when it is checked', () => {
    const warnings = async (more: ConstructorParameters<typeof Pool>[0] = {}) => {
      const asked = new Pool({ connectionString: server.url, ...more }).on('error', () => {})
      const found = await new PostgresIdempotencyStore({ pool: asked }).check().finally(() => asked.end())
      return found.join('\n')
    }

    it('is content with a Postgres as it is installed', async () => {
      expect(await warnings()).to.equal('')
    })

    it('warns of settings that forget, and of connections that cannot write', async () => {
      expect(await warnings({ options: '-c synchronous_commit=off' })).to.contain('synchronous_commit is off')
      expect(await warnings({ options: '-c default_transaction_read_only=on' })).to.contain('read-only')
      await pool.query('ALTER TABLE surehop.inbox SET UNLOGGED')
      expect(await warnings()).to.contain('unlogged')
      await pool.query('ALTER TABLE surehop.inbox SET LOGGED')
    })

    it('warns of a pool whose process would end at the first restart of Postgres', async () => {
      const bare = new Pool({ connectionString: server.url })
      expect((await new PostgresIdempotencyStore({ pool: bare }).check()).join()).to.contain("pool.on('error'")
      await bare.end()
    })

    it('refuses a database without the tables, and says how to make them', async () => {
      const error = await new PostgresIdempotencyStore({ pool, schema: 'nowhere' }).check().catch((it: unknown) => it)
      expect(error).to.be.instanceOf(SchemaMismatch).with.property('message').that.contains('surehop migrate')
    })

    it('says that Postgres cannot be reached', async () => {
      const nowhere = new Pool({ host: '127.0.0.1', port: await freePort() })
      await refusal(new PostgresIdempotencyStore({ pool: nowhere }).check())
      await nowhere.end()
    })
  })

  it('has every effect and every output once: 240 messages, each twice, two consumers, failures, two restarts', async () => {
    const queue = uniqueQueue('inbox-twice')
    const ids = Array.from({ length: 240 }, (_, n) => `${v7()}-${n}`)
    const done = new Tally<string>()
    const outbox = new Outbox({ name: 'twice' })
    const consume = async () => {
      const own = new Pool({ connectionString: server.url, max: 8 }).on('error', () => {})
      const inbox = new PostgresIdempotencyStore({ pool: own, statementTimeoutMs: 1_000 })
      const surehop = await connected()
      const retry = { attempts: 100, backoff: fixed({ delayMs: 100 }) }
      const handler = inbox.transactional({ outbox }, async ({ messageId }, { client, publish, attempt }) => {
        await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
        await publish('events', { type: 'done', body: { attempt } })
        if (attempt === 1 && Number(messageId.split('-').at(-1)) % 5 === 0) throw new Error('the first attempt of some')
        done.add(messageId)
      })
      await surehop.consume(
        queue,
        { idempotency: inbox, leaseMs: 2_000, concurrency: 5, maxStarts: 1_000, retry },
        handler,
      )
      return own
    }
    const pools = [await consume(), await consume()]
    const producer = (await connected()).producer()
    const sent = producer.publishMany(
      '',
      [...ids, ...ids].map((messageId) => ({ routingKey: queue, messageId, body: {} })),
    )
    await done.reaches(40, 60_000)
    await server.restart()
    await done.reaches(120, 60_000)
    await server.kill9()
    await server.start()
    await sent
    await eventually(
      async () => {
        const { rows } = await pool.query('SELECT count(DISTINCT id) AS n FROM effects WHERE id = ANY($1)', [ids])
        expect(Number(rows[0].n)).to.equal(ids.length)
      },
      { withinMs: 60_000 },
    )
    await nothingLeft(queue)
    const effects = await pool.query('SELECT count(*) AS n FROM effects WHERE id = ANY($1)', [ids])
    const outputs = await pool.query(
      'SELECT count(*) AS n, count(DISTINCT message_id) AS different FROM surehop.outbox WHERE transaction_id = ANY($1)',
      [ids],
    )
    expect([effects.rows, outputs.rows]).to.deep.equal([[{ n: '240' }], [{ n: '240', different: '240' }]])
    await closeAll()
    for (const one of pools) await one.end()
  })
})

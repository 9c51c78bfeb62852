// Transactional handlers: what is committed together, what is not committed at all, and what is said when they are set up wrongly.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { expect } from 'chai'
import { type SQL, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { type Knex, knex } from 'knex'
import { CompiledQuery, Kysely, PostgresDialect, type Transaction } from 'kysely'
import { Pool, type PoolClient } from 'pg'
import { DataSource, type EntityManager } from 'typeorm'
import { v7 } from 'uuid'
import type { AttemptEnd } from '../../lib/consumer/active.ts'
import { commitError } from '../../lib/idempotency/postgres-handler-transaction.ts'
import {
  Closed,
  CommitRefused,
  DatabaseUnavailable,
  DeadLetterNow,
  type Handler,
  InvalidOption,
  LeaseLost,
  Outbox,
  PostgresIdempotencyStore,
  type SqlFunction,
  type TransactionalContext,
} from '../../lib/index.ts'
import { derivedMessageId } from '../../lib/message.ts'
import { closeAll, connected, Tally } from '../consumer/setup.ts'
import { latch } from '../support/eventually.ts'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { uniqueQueue } from '../support/unique.ts'
import { type AttemptOf, attemptOf } from './attempt.ts'
import { freshInbox, type Inbox } from './postgres-under-test.ts'

const HOUR = 3_600_000

describe('a transactional handler', function () {
  this.timeout(60_000)
  let inbox: Inbox
  let store: PostgresIdempotencyStore
  let outbox: Outbox
  before(async () => {
    inbox = await freshInbox()
    await inbox.pool.query(`CREATE TABLE effects (id text PRIMARY KEY, owner text)`)
    await inbox.pool.query(`CREATE TABLE strict (id text UNIQUE DEFERRABLE INITIALLY DEFERRED)`)
    store = new PostgresIdempotencyStore({ pool: inbox.pool, schema: inbox.schema })
    outbox = new Outbox({ name: 'test', schema: inbox.schema })
  })
  after(() => inbox.close())

  /** A message that is leased to a run. */
  async function leased(id: string = v7()) {
    const scope = { name: `queue ${randomUUID()}`, retentionMs: HOUR, leaseMs: HOUR, maxStarts: 3 }
    const claim = { id, digest: undefined, generation: 0, attempt: 1, sequence: 1 }
    const [answer] = await store.claim(scope, 'me', [claim])
    const { fencingToken } = answer as { fencingToken: number }
    const settle = async () => {
      const ending = { state: 'completed' } as const
      return (await store.settle(scope, 'me', [{ id, fencingToken, digest: undefined, ending }]))[0]
    }
    const attempt = (handler: Handler, more: Partial<AttemptOf> = {}) =>
      attemptOf(handler, { queue: scope.name, id, fencingToken, ...more })
    const state = async () => (await store.look(scope, [id]))[0]!.state
    const effects = async () => (await inbox.pool.query('SELECT id FROM effects WHERE id = $1', [id])).rows.length
    const outputs = async () => {
      const from = `FROM ${inbox.schema}.outbox WHERE transaction_id = $1 ORDER BY position`
      const { rows } = await inbox.pool.query(`SELECT message_id, exchange, routing_key, properties ${from}`, [
        `t-${id}`,
      ])
      return rows
    }
    const putOff = async () => (await store.claim(scope, 'other', [{ ...claim, sequence: 2 }]))[0]!.status
    const takeOver = async () => {
      await store.renew(scope, 'me', { leave: true })
      const [other] = await store.claim(scope, 'other', [{ ...claim, sequence: 2 }])
      expect(other!.status).to.equal('acquired')
    }
    return { id, queue: scope.name, attempt, settle, state, effects, outputs, putOff, takeOver }
  }

  const effect = (client: Pick<PoolClient, 'query'>, id: string) =>
    client.query('INSERT INTO effects (id) VALUES ($1)', [id])

  function errorOf(end: AttemptEnd): Error {
    expect(end.ended).not.to.equal('done')
    return (end as { error: Error }).error
  }

  it('commits its work, its record and its publishes together, and the consumer finds it completed', async () => {
    const message = await leased()
    const handler = store.transactional(
      { outbox },
      async ({ messageId }, context: TransactionalContext<PoolClient>) => {
        await effect(context.client, messageId)
        const first = await context.publish('events', { type: 'order.reserved', body: 1, headers: { mine: 'x' } })
        const named = await context.send('billing', { body: 2 }, { name: 'bill' })
        void context.publish('events', { type: 'not.awaited', body: 3 })
        expect([first.messageId, named.messageId]).to.deep.equal([idOf('0'), idOf('name:bill')])
        expect(first.transactionId).to.equal(`t-${messageId}`)
      },
    )
    const idOf = (name: string) => derivedMessageId(message.id, message.queue, name)
    expect(await message.attempt(handler)).to.deep.equal({ ended: 'done' })
    expect([await message.state(), await message.effects(), await message.settle()]).to.deep.equal([
      'completed',
      1,
      'already',
    ])
    const outputs = await message.outputs()
    expect(outputs.map(({ message_id }) => message_id)).to.deep.equal([idOf('0'), idOf('name:bill'), idOf('1')])
    expect(outputs[1]).to.include({ exchange: '', routing_key: 'billing' })
    expect(JSON.parse(outputs[0].properties).headers).to.include({ mine: 'x', 'surehop-derived': true })
  })

  it('derives other ids for what an edited letter causes, as a plain handler does', async () => {
    const message = await leased()
    const handler = store.transactional({ outbox }, (_, { publish }) => publish('events', { body: 1 }))
    await message.attempt(handler, { editedFrom: 'before' })
    const [output] = await message.outputs()
    expect(output.message_id).to.equal(derivedMessageId(message.id, message.queue, 'before\n0'))
  })

  type Act = (client: PoolClient, context: TransactionalContext<PoolClient>) => unknown
  const failures: Readonly<Record<string, Act>> = {
    throws: () => Promise.reject(new Error('boom')),
    'fails at the commit': (client) => client.query("INSERT INTO strict VALUES ('a'), ('a')"),
    'publishes what cannot be sent, and awaits it not': (_, context) =>
      void context.publish('events', { body: 1, wrong: 1 } as never).catch(() => {}),
    'publishes twice under one name': async (_, { publish }) => {
      await publish('events', { body: 1 }, { name: 'a' })
      void publish('events', { body: 2 }, { name: 'a' }).catch(() => {})
    },
    'goes on after a statement that failed': (client) => client.query('SELECT 1/0').catch(() => {}),
  }
  for (const [what, act] of Object.entries(failures)) {
    it(`leaves nothing when it ${what}`, async () => {
      const message = await leased()
      const handler = store.transactional(
        { outbox },
        async ({ messageId }, context: TransactionalContext<PoolClient>) => {
          await effect(context.client, messageId)
          await context.publish('events', { body: 0 }, { name: 'first' })
          await act(context.client, context)
        },
      )
      expect((await message.attempt(handler)).ended).to.equal('failed')
      expect([await message.state(), await message.effects(), await message.outputs()]).to.deep.equal(['leased', 0, []])
    })
  }

  it('says what to do when its handler dropped the error of a statement', async () => {
    const message = await leased()
    const handler = store.transactional(async (_, { client }) => {
      await client.query('SELECT 1/0').catch(() => {})
    })
    const error = errorOf(await message.attempt(handler))
    expect(error).to.be.instanceOf(CommitRefused)
    expect(error.message).to.contain('let errors of statements through, or use a savepoint')
  })

  it('commits nothing after its lease was taken over, and says so', async () => {
    const message = await leased()
    const handler = store.transactional(async ({ messageId }, { client }) => {
      await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
      await message.takeOver()
    })
    expect(errorOf(await message.attempt(handler))).to.be.instanceOf(LeaseLost)
    expect([await message.state(), await message.effects()]).to.deep.equal(['leased', 0])
  })

  for (const isolation of ['read committed', 'repeatable read', 'serializable'] as const)
    it(`commits at ${isolation} although another copy of its message was put off meanwhile`, async () => {
      const message = await leased()
      const handler = store.transactional({ isolation }, async ({ messageId }, { client }) => {
        await effect(client as PoolClient, messageId)
        expect(await message.putOff()).to.equal('leased')
      })
      expect(await message.attempt(handler)).to.deep.equal({ ended: 'done' })
      expect([await message.state(), await message.effects()]).to.deep.equal(['completed', 1])
    })

  it('does not even begin after its lease was taken over', async () => {
    const message = await leased()
    await message.takeOver()
    const end = await message.attempt(store.transactional(() => expect.fail('it began')))
    expect(errorOf(end)).to.be.instanceOf(LeaseLost)
  })

  it('commits nothing after its signal has fired, although it resolves', async () => {
    const message = await leased()
    const reason = new LeaseLost('late')
    let abort!: (reason: Error) => void
    const handler = store.transactional(async ({ messageId }, { client }) => {
      await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
      abort(reason)
    })
    const end = await message.attempt(handler, { onStart: (it) => (abort = it) })
    expect(end).to.deep.equal({ ended: 'interrupted', error: reason })
    expect([await message.state(), await message.effects()]).to.deep.equal(['leased', 0])
  })

  it('has no effect by what goes on when it has failed: the other branch of a Promise.all', async () => {
    const message = await leased()
    const [failed, goesOn] = [latch(), latch()]
    let branch!: Promise<unknown>
    const handler = store.transactional({ outbox }, async ({ messageId }, { client, publish }) => {
      const others = async () => {
        await effect(client as PoolClient, `first ${messageId}`)
        goesOn.resolve()
        await failed.promise
        const rest = [effect(client as PoolClient, messageId), publish('events', { body: 1 })]
        return (await Promise.allSettled(rest)).map((end) => (end as PromiseRejectedResult).reason)
      }
      branch = others()
      const boom = async () => {
        await goesOn.promise
        throw new Error('boom')
      }
      await Promise.all([branch, boom()])
    })
    expect(errorOf(await message.attempt(handler)).message).to.equal('boom')
    failed.resolve()
    for (const reason of (await branch) as unknown[]) expect(reason).to.be.instanceOf(Closed)
    expect([await message.effects(), await message.outputs()]).to.deep.equal([0, []])
  })

  it('that hangs after its signal has fired loses its connection, and its locks with it', async () => {
    const [message, forever] = [await leased(), latch()]
    const handler = store.transactional(async ({ messageId }, { client }) => {
      await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
      await forever.promise
    })
    expect((await message.attempt(handler, { timeoutMs: 20 })).ended).to.equal('failed')
    // Waits for the lock of the row, if there is one.
    await effect(inbox.pool, message.id)
    forever.resolve()
  })

  for (const [what, statements] of Object.entries({
    commits: ['COMMIT'],
    'rolls back and begins anew': ['ROLLBACK', 'BEGIN'],
  })) {
    it(`that ${what} by itself is parked at once, and told why`, async () => {
      const message = await leased()
      const handler = store.transactional(async (_, { client }) => {
        for (const statement of statements) await client.query(statement)
      })
      const error = errorOf(await message.attempt(handler))
      expect(error).to.be.instanceOf(DeadLetterNow)
      expect(error.message).to.contain('ended its transaction itself')
      expect(await message.state()).to.equal('leased')
    })
  }

  it('may use savepoints', async () => {
    const message = await leased()
    const handler = store.transactional(async ({ messageId }, { client }) => {
      await client.query('SAVEPOINT s')
      await client.query('SELECT 1/0').catch(() => client.query('ROLLBACK TO s'))
      await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
    })
    expect(await message.attempt(handler)).to.deep.equal({ ended: 'done' })
    expect(await message.effects()).to.equal(1)
  })

  it('says what is missing: an idempotency store, this one, or an outbox', async () => {
    const message = await leased()
    const idle = store.transactional(() => expect.fail('it began'))
    const without = errorOf(await message.attempt(idle, { fencingToken: undefined }))
    expect(without).to.be.instanceOf(InvalidOption).with.property('message').that.contains('fencingToken is undefined')
    const other = errorOf(await message.attempt(idle, { queue: 'of another store' }))
    expect(other).to.be.instanceOf(InvalidOption).with.property('message').that.contains('no record of message')
    const mute = errorOf(await message.attempt(store.transactional((_, { publish }) => publish('events', { body: 1 }))))
    expect(mute).to.be.instanceOf(InvalidOption).with.property('message').that.contains('outbox: new Outbox')
  })

  it('refuses options that are misspelt, and a pool that handlers would use up', () => {
    expect(() => store.transactional({ outBox: outbox } as never, () => {})).to.throw(
      InvalidOption,
      'did you mean "outbox"',
    )
    expect(() => store.transactional({ transaction: () => {} } as never, () => {})).to.throw(InvalidOption, 'query')
    expect(() => store.transactional(undefined as never)).to.throw(InvalidOption, 'handler')
    const small = new PostgresIdempotencyStore({ pool: new Pool({ max: 2 }) })
    expect(() => small.transactional(() => {})).to.throw(InvalidOption, 'more than 2 connections')
  })

  it('leaves clients to the inbox, however many handlers run', async () => {
    const pool = new Pool({ connectionString: inbox.url, max: 4 })
    const busy = new PostgresIdempotencyStore({ pool, schema: inbox.schema, statementTimeoutMs: 1_000 })
    const messages = await Promise.all(Array.from({ length: 10 }, () => leased()))
    const [two, all] = [latch(), latch()]
    let running = 0
    const handler = busy.transactional(async ({ messageId }, { client }) => {
      if (++running === 2) two.resolve()
      await all.promise
      await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
    })
    const ends = messages.map(({ attempt }) => attempt(handler))
    await two.promise
    expect(await busy.renew({ name: 'any', retentionMs: HOUR, leaseMs: HOUR, maxStarts: 3 }, 'me')).to.equal('held')
    expect(running).to.equal(2)
    all.resolve()
    expect((await Promise.all(ends)).every(({ ended }) => ended === 'done')).to.equal(true)
    await pool.end()
  })

  it('leaves clients to the inbox beside handlers of another consumer on the same pool', async () => {
    const pool = new Pool({ connectionString: inbox.url, max: 4 })
    const busy = new PostgresIdempotencyStore({ pool, schema: inbox.schema, statementTimeoutMs: 1_000 })
    const messages = await Promise.all(Array.from({ length: 6 }, () => leased()))
    const [two, all] = [latch(), latch()]
    let running = 0
    const handlers = [1, 2].map(() =>
      busy.transactional(async () => {
        if (++running === 2) two.resolve()
        await all.promise
      }),
    )
    const ends = messages.map(({ attempt }, i) => attempt(handlers[i % 2]!))
    await two.promise
    const scope = { name: 'any', retentionMs: HOUR, leaseMs: HOUR, maxStarts: 3 }
    for (let n = 0; n < 20; n++) expect(await busy.renew(scope, 'me')).to.equal('held')
    expect(running).to.equal(2)
    all.resolve()
    expect((await Promise.all(ends)).every(({ ended }) => ended === 'done')).to.equal(true)
    await pool.end()
  })

  it('fails when Postgres answers its COMMIT with a rollback, since a statement failed that nobody awaited', async () => {
    const message = await leased()
    const handler = store.transactional(async ({ messageId }, { client }: TransactionalContext<PoolClient>) => {
      await effect(client, messageId)
      // The second one goes out behind the record's completion.
      void client
        .query('SELECT 1')
        .then(() => client.query('SELECT 1/0'))
        .catch(() => {})
    })
    expect(errorOf(await message.attempt(handler))).to.be.instanceOf(CommitRefused)
    expect([await message.state(), await message.effects()]).to.deep.equal(['leased', 0])
  })

  it('ends with its signal although its BEGIN gets no answer', async () => {
    const message = await leased()
    const proxy = await startProxy(inbox.url)
    const pool = new Pool({ connectionString: proxy.url }).on('error', () => {})
    let abort!: (reason: Error) => void
    proxy.on('data', (way, bytes) => {
      if (way !== 'to-server' || !bytes.includes('BEGIN')) return
      proxy.stall()
      abort(new LeaseLost('late'))
    })
    const cut = new PostgresIdempotencyStore({ pool, schema: inbox.schema })
    const handler = cut.transactional(() => expect.fail('it began'))
    const end = await message.attempt(handler, { onStart: (it) => (abort = it) })
    expect(errorOf(end)).to.be.instanceOf(LeaseLost)
    await pool.end()
    await proxy.close()
  })

  it('never runs beside itself in one process, although it outlives its signal and its connection', async () => {
    const proxy = await startProxy(process.env['AMQP_URL']!)
    const surehop = await connected({ amqp: proxy.url })
    const [queue, ended] = [uniqueQueue(), new Tally<unknown>()]
    const [begun, goOn] = [latch<PoolClient>(), latch()]
    let [running, most] = [0, 0]
    const handler = store.transactional(async ({ body }, { client }: TransactionalContext<PoolClient>) => {
      if (body === 'long') {
        most = Math.max(most, ++running)
        begun.resolve(client)
        await goOn.promise
        running--
      }
      ended.add(body)
    })
    await surehop.consume(queue, { idempotency: store, concurrency: 3 }, handler)
    const producer = surehop.producer()
    await producer.send(queue, { type: 'a', body: 'long' })
    const closed = once(await begun.promise, 'end')
    proxy.cut()
    await closed
    // It has been delivered again before these are.
    for (let n = 1; n <= 3; n++) {
      await producer.send(queue, { type: 'a', body: n })
      await ended.reaches(n)
    }
    goOn.resolve()
    await ended.reaches(5)
    expect([most, ended.seen]).to.deep.equal([1, [1, 2, 3, 'long', 'long']])
    await closeAll()
    await proxy.close()
  })

  it('tells a COMMIT that was refused from one of which nothing is known', () => {
    const error = (code: string) => commitError(Object.assign(new Error('x'), { code }))
    for (const code of ['08006', '57P01', 'ECONNRESET', 'EPIPE', 'P1017'])
      expect(error(code), code).to.be.instanceOf(DatabaseUnavailable).with.property('message').contains('not known')
    for (const code of ['23505', '40001', 'P0001']) expect(error(code).message, code).to.equal('x')
  })

  describe('whose COMMIT gets no answer', () => {
    let proxy: TcpProxy
    let pool: Pool
    before(async () => {
      proxy = await startProxy(inbox.url)
    })
    beforeEach(() => {
      pool = new Pool({ connectionString: proxy.url }).on('error', () => {})
    })
    afterEach(async () => {
      proxy.removeAllListeners('data')
      await proxy.resume()
      await pool.end()
    })
    after(() => proxy.close())

    /** Cuts the line as COMMIT goes by, one way or the other. */
    function cutAt(direction: 'to-server' | 'to-client', forGood = true): void {
      let asked = false
      proxy.on('data', (way, bytes) => {
        if (way === 'to-server' && bytes.includes('COMMIT')) asked = true
        if (!asked || way !== direction) return
        proxy.cut()
        asked = forGood
      })
    }

    it('counts as done when it is seen to stand: the last attempt of a message that was done gives no dead letter', async () => {
      const message = await leased()
      const cut = new PostgresIdempotencyStore({ pool, schema: inbox.schema })
      const handler = cut.transactional({ outbox }, async ({ messageId }, { client }) => {
        await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
        cutAt('to-client', false)
      })
      expect((await message.attempt(handler)).ended).to.equal('done')
      expect([await message.state(), await message.effects()]).to.deep.equal(['completed', 1])
    })

    for (const [direction, committed] of [
      ['to-server', false],
      ['to-client', true],
    ] as const) {
      it(`fails the attempt where nobody can tell, and the retry finds the truth: ${committed ? 'committed' : 'not committed'}`, async () => {
        const message = await leased()
        const cut = new PostgresIdempotencyStore({ pool, schema: inbox.schema })
        const handler = cut.transactional({ outbox }, async ({ messageId }, { client, publish }) => {
          await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
          await publish('events', { body: 1 })
          cutAt(direction)
        })
        const error = errorOf(await message.attempt(handler))
        expect(error).to.be.instanceOf(DatabaseUnavailable)
        expect(error.message).to.contain('not known whether')
        const plain = store.transactional({ outbox }, async ({ messageId }, { client, publish }) => {
          await client.query('INSERT INTO effects (id) VALUES ($1)', [messageId])
          await publish('events', { body: 1 })
        })
        expect(await message.state()).to.equal(committed ? 'completed' : 'leased')
        const again = await message.attempt(plain)
        expect(again.ended).to.equal(committed ? 'failed' : 'done')
        expect([await message.state(), await message.effects(), (await message.outputs()).length]).to.deep.equal([
          'completed',
          1,
          1,
        ])
      })
    }
  })

  describe('on the transaction of a query tool', () => {
    const closers: (() => Promise<unknown>)[] = []
    after(async () => {
      for (const close of closers) await close()
    })

    const work = async (run: SqlFunction, id: string, fails: boolean) => {
      await run('INSERT INTO effects (id) VALUES ($1)', [id])
      if (fails) throw new Error('boom')
    }

    const tools: Readonly<Record<string, (fails: boolean) => Handler | Promise<Handler>>> = {
      Knex: (fails) => {
        const db = knex({ client: 'pg', connection: inbox.url })
        closers.push(() => db.destroy())
        const query =
          (trx: Knex.Transaction): SqlFunction =>
          (text, parameters) =>
            trx.raw(text.replace(/\$\d+/g, '?'), parameters as Knex.Value[])
        return store.transactional(
          { outbox, transaction: (run) => db.transaction((trx) => run(trx)), query },
          async ({ messageId }, { client, publish }) => {
            await publish('events', { body: 1 })
            await client('effects').insert({ id: messageId })
            if (fails) throw new Error('boom')
          },
        )
      },
      Kysely: (fails) => {
        const pool = new Pool({ connectionString: inbox.url })
        const db = new Kysely<{ effects: { id: string } }>({ dialect: new PostgresDialect({ pool }) })
        closers.push(() => db.destroy())
        const query =
          (trx: Transaction<{ effects: { id: string } }>): SqlFunction =>
          (text, parameters) =>
            trx.executeQuery(CompiledQuery.raw(text, parameters))
        return store.transactional(
          { outbox, transaction: (run) => db.transaction().execute((trx) => run(trx)), query },
          async ({ messageId }, { client, publish }) => {
            await publish('events', { body: 1 })
            await client.insertInto('effects').values({ id: messageId }).execute()
            if (fails) throw new Error('boom')
          },
        )
      },
      Drizzle: (fails) => {
        const pool = new Pool({ connectionString: inbox.url })
        const db = drizzle(pool)
        closers.push(() => pool.end())
        const query =
          (tx: Parameters<Parameters<typeof db.transaction>[0]>[0]): SqlFunction =>
          (text, parameters) => {
            const [first = '', ...parts] = text.split(/\$\d+/).map((part) => sql.raw(part))
            const joined: SQL = sql.join([
              first as SQL,
              ...parts.flatMap((part, i) => [sql.param(parameters[i]), part]),
            ])
            return tx.execute(joined) as unknown as Promise<{ rows: unknown[] }>
          }
        return store.transactional(
          { outbox, transaction: (run) => db.transaction((tx) => run(tx)), query },
          async ({ messageId }, { client, publish }) => {
            await publish('events', { body: 1 })
            await work(query(client), messageId, fails)
          },
        )
      },
      TypeORM: async (fails) => {
        const db = await new DataSource({ type: 'postgres', url: inbox.url }).initialize()
        closers.push(() => db.destroy())
        const query =
          (manager: EntityManager): SqlFunction =>
          async (text, parameters) =>
            (await manager.queryRunner!.query(text, parameters, true)).records
        return store.transactional(
          { outbox, transaction: (run) => db.transaction((manager) => run(manager)), query },
          async ({ messageId }, { client, publish }) => {
            await publish('events', { body: 1 })
            await work(query(client), messageId, fails)
          },
        )
      },
    }

    for (const [tool, handlerOf] of Object.entries(tools)) {
      it(`of ${tool}, commits all or nothing`, async () => {
        const message = await leased()
        expect((await message.attempt(await handlerOf(true))).ended).to.equal('failed')
        expect([await message.state(), await message.effects(), await message.outputs()]).to.deep.equal([
          'leased',
          0,
          [],
        ])
        expect(await message.attempt(await handlerOf(false))).to.deep.equal({ ended: 'done' })
        expect([await message.state(), await message.effects()]).to.deep.equal(['completed', 1])
        expect(await message.outputs()).to.have.length(1)
      })
    }

    it('fails when the tool takes a rollback for the COMMIT it asked for', async () => {
      const message = await leased()
      const pool = new Pool({ connectionString: inbox.url })
      const db = new Kysely<{ effects: { id: string } }>({ dialect: new PostgresDialect({ pool }) })
      closers.push(() => db.destroy())
      type Trx = Transaction<{ effects: { id: string } }>
      const query =
        (trx: Trx): SqlFunction =>
        (text, parameters) =>
          trx.executeQuery(CompiledQuery.raw(text, parameters))
      const handler = store.transactional(
        {
          transaction: (work) => db.transaction().execute((trx) => work(trx)),
          query,
        },
        async ({ messageId }, { client }) => {
          await client.insertInto('effects').values({ id: messageId }).execute()
          void Promise.resolve(query(client)('SELECT 1', []))
            .then(() => query(client)('SELECT 1/0', []))
            .catch(() => {})
        },
      )
      expect(errorOf(await message.attempt(handler))).to.be.instanceOf(CommitRefused)
      expect([await message.state(), await message.effects()]).to.deep.equal(['leased', 0])
    })

    it('refuses one that opens no transaction, runs its work twice, or does not wait for it', async () => {
      const query = () => async (text: string, parameters: unknown[]) => inbox.pool.query(text, parameters)
      const none = store.transactional({ transaction: (run) => run(1), query: (_: number) => query() }, () => {})
      expect(errorOf(await (await leased()).attempt(none))).to.be.instanceOf(DeadLetterNow)
      const onClient = async (run: (client: PoolClient) => Promise<void>) => {
        const client = await inbox.pool.connect()
        await client.query('BEGIN')
        await run(client).catch(() => {})
        await run(client).finally(() => client.query('ROLLBACK').then(() => client.release()))
      }
      const queryOn =
        (client: PoolClient): SqlFunction =>
        (text, parameters) =>
          client.query(text, parameters)
      const twice = store.transactional({ transaction: onClient, query: queryOn }, () => {})
      expect(errorOf(await (await leased()).attempt(twice)).message).to.contain('ran it again')
      const early = store.transactional(
        { transaction: async (run) => void run(1).catch(() => {}), query: (_: number) => query() },
        () => {},
      )
      expect(errorOf(await (await leased()).attempt(early)).message).to.contain('resolved before')
    })
  })
})

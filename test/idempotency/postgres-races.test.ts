// Owners that meet in the middle of each other's transactions: every order of their statements, on a real Postgres.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { v7 } from 'uuid'
import type { Claim, ClaimResult, Scope, SettleResult } from '../../lib/idempotency/idempotency.ts'
import { PostgresIdempotencyStore } from '../../lib/idempotency/postgres.ts'
import type { SqlPool } from '../../lib/sql/client.ts'
import { attemptOf } from './attempt.ts'
import { explore, type Play, type Played, playAll, type Schedule } from './gated-pool.ts'
import { sharedInbox } from './postgres-under-test.ts'

const LONG = 3_600_000
const completed = { state: 'completed' } as const
/** Statements of a transactional handler, and of a takeover, BEGIN and COMMIT included. */
const [HANDLE, TAKEOVER] = [5, 6]

describe('the Postgres inbox, whatever the order of statements', function () {
  this.timeout(240_000)
  const inbox = sharedInbox()
  before(() => inbox.pool.query(`CREATE TABLE ${inbox.schema}.effects (id text NOT NULL, by text NOT NULL)`))

  /** A record of its own, and what owners do with it, each on the pool it is given. */
  class Stage {
    readonly scope: Scope = { name: randomUUID(), retentionMs: LONG, leaseMs: LONG, maxStarts: 9 }
    readonly id = v7()
    #sequence = 0

    store(pool: SqlPool = inbox.pool): PostgresIdempotencyStore {
      return new PostgresIdempotencyStore({ pool, schema: inbox.schema, statementTimeoutMs: 30_000 })
    }

    claimOf(id: string): Claim {
      return { id, digest: undefined, generation: 0, attempt: 1, sequence: ++this.#sequence }
    }

    claimMany(owner: string, ids: readonly string[], pool?: SqlPool): Promise<ClaimResult[]> {
      const claims = ids.map((id) => this.claimOf(id))
      return this.store(pool).claim(this.scope, owner, claims)
    }

    async claim(owner: string, pool?: SqlPool): Promise<ClaimResult> {
      const [answer] = await this.claimMany(owner, [this.id], pool)
      return answer!
    }

    claiming(owner: string): Play<ClaimResult> {
      return (pool) => this.claim(owner, pool)
    }

    claimingAndHandling(owner: string) {
      return async (pool?: SqlPool): Promise<string> => {
        const answer = await this.claim(owner, pool)
        return answer.status === 'acquired' ? this.handle(owner, answer.fencingToken, pool) : answer.status
      }
    }

    async settle(owner: string, token: number, pool?: SqlPool): Promise<SettleResult> {
      const settlement = { id: this.id, fencingToken: token, digest: undefined, ending: completed }
      const [result] = await this.store(pool).settle(this.scope, owner, [settlement])
      return result!
    }

    /** An owner that holds the message, in a store that remembers it; its later statements are made on the pool of a play. */
    async holder(owner: string) {
      let on: SqlPool = inbox.pool
      const store = this.store({ query: (sql, parameters) => on.query(sql, parameters), connect: () => on.connect() })
      await store.claim(this.scope, owner, [this.claimOf(this.id)])
      const renew = (pool: SqlPool) => {
        on = pool
        return store.renew(this.scope, owner)
      }
      return { renew }
    }

    /** What time would do, without waiting: in so many ms all owners have been silent for longer than their leases. */
    silence(inMs = 0) {
      const until = "clock_timestamp() + $2 * interval '1 millisecond'"
      const sql = `UPDATE ${inbox.schema}.inbox_owners SET until = ${until} WHERE scope = $1`
      return inbox.pool.query(sql, [this.scope.name, inMs])
    }

    async state(): Promise<string> {
      const [view] = await this.store().look(this.scope, [this.id])
      return view!.state
    }

    /** One run of a transactional handler that notes an effect. */
    async handle(owner: string, token: number, pool?: SqlPool): Promise<'done' | 'failed'> {
      const store = this.store(pool)
      const handler = store.transactional(async ({ messageId }, { client }) => {
        await client.query(`INSERT INTO ${inbox.schema}.effects (id, by) VALUES ($1, $2)`, [messageId, owner])
      })
      const { ended } = await attemptOf(handler, { queue: this.scope.name, id: this.id, fencingToken: token })
      return ended === 'done' ? 'done' : 'failed'
    }

    async effects(): Promise<string[]> {
      const { rows } = await inbox.pool.query(`SELECT by FROM ${inbox.schema}.effects WHERE id = $1`, [this.id])
      return rows.map(({ by }) => by)
    }
  }

  const play = <T>(plays: readonly Play<T>[], schedule: Schedule) => playAll(inbox.pool, plays, schedule)

  const statuses = ({ results }: Played<ClaimResult>) => results.map((result) => result?.status)

  it('grants a new message to one of two', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      const played = await play([stage.claiming('a'), stage.claiming('b')], schedule)
      expect(statuses(played)).to.have.members(['acquired', 'leased'])
      return played
    }))

  it('lets one of two take over from an owner that fell silent', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      await stage.claim('dead')
      await stage.silence()
      const played = await play([stage.claiming('a'), stage.claiming('b')], schedule)
      expect(statuses(played)).to.have.members(['acquired', 'leased'])
      return played
    }))

  it('never has two owners that think they live: who renews while it is judged dead is kept and told, or told', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      const a = await stage.holder('a')
      await stage.silence()
      const claim = async (pool: SqlPool) => (await stage.claim('b', pool)).status
      const played = await play<string>([a.renew, claim], schedule)
      expect(played.results[0], 'it was silent for too long, and is told so').to.equal('lapsed')
      expect(played.results[1]).to.be.oneOf(['acquired', 'leased'])
      expect((await stage.claim('c')).status, 'one of them lives').to.equal('leased')
      return played
    }))

  it('leaves a lease in peace whose owner renews in time', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      const a = await stage.holder('a')
      const claim = async (pool: SqlPool) => (await stage.claim('b', pool)).status
      const played = await play<string>([a.renew, claim], schedule)
      expect(played.results).to.deep.equal(['held', 'leased'])
      return played
    }))

  it('never has two owners that think they live when a lease runs out while its owner renews', async () => {
    const run = async (schedule: Schedule) => {
      const stage = new Stage()
      const a = await stage.holder('a')
      const claim = async (pool: SqlPool) => (await stage.claim('b', pool)).status
      // Time passes between two statements, wherever the order has it.
      const time = async (pool: SqlPool) => {
        const client = await pool.connect()
        await client.query('SELECT pg_sleep(0.04)')
        client.release()
        return 'passed'
      }
      await stage.silence(30)
      const { results } = await play<string>([a.renew, claim, time], schedule)
      expect(results.slice(0, 2), `${schedule}`).not.to.deep.equal(['held', 'acquired'])
    }
    const orders = fc.array(fc.nat({ max: 2 }), { minLength: 10, maxLength: 12 })
    await fc.assert(fc.asyncProperty(orders, run), { numRuns: 150, endOnFailure: true })
  })

  it('lets an ending or a takeover win, never both', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      const { fencingToken } = grant(await stage.claim('a'))
      await stage.silence()
      const claim = async (pool: SqlPool) => (await stage.claim('b', pool)).status
      const played = await play<string>([(pool) => stage.settle('a', fencingToken, pool), claim], schedule)
      expect(played.results).to.be.deep.oneOf([
        ['settled', 'completed'],
        ['lost', 'acquired'],
      ])
      return played
    }))

  it('lets the commit of a transactional handler or a takeover win, never both', () =>
    explore(async (schedule) => {
      const stage = new Stage()
      const { fencingToken } = grant(await stage.claim('a'))
      await stage.silence()
      const claim = async (pool: SqlPool) => (await stage.claim('b', pool)).status
      const played = await play<string>([(pool) => stage.handle('a', fencingToken, pool), claim], schedule)
      expect([...played.results, ...(await stage.effects())]).to.be.deep.oneOf([
        ['done', 'completed', 'a'],
        ['failed', 'acquired'],
      ])
      return played
    }))

  it('has every effect once when a zombie and two successors meet', async () => {
    const orders = fc.array(fc.nat({ max: 2 }), { minLength: 10, maxLength: 34 })
    const run = async (schedule: Schedule) => {
      const stage = new Stage()
      const { fencingToken } = grant(await stage.claim('a'))
      await stage.silence()
      const zombie = (pool: SqlPool) => stage.handle('a', fencingToken, pool)
      await play<string>([zombie, stage.claimingAndHandling('b'), stage.claimingAndHandling('c')], schedule)
      expect(await stage.effects()).to.have.length(1)
      expect(await stage.state()).to.equal('completed')
    }
    await fc.assert(fc.asyncProperty(orders, run), { numRuns: 60 })
  })

  it('has every effect once when a handler dies before any of its statements, and others come by', async () => {
    for (const schedule of deaths(HANDLE)) {
      const stage = new Stage()
      const { fencingToken } = grant(await stage.claim('a'))
      await stage.silence()
      const dying = (pool: SqlPool) => stage.handle('a', fencingToken, pool)
      await play<string>([dying, stage.claimingAndHandling('b')], schedule)
      await stage.claimingAndHandling('c')()
      expect(await stage.effects(), `${schedule}`).to.have.length(1)
      expect(await stage.state()).to.equal('completed')
    }
  })

  it('leaves nothing half done when a claim dies before any of its statements', async () => {
    for (const schedule of deaths(TAKEOVER)) {
      const stage = new Stage()
      await stage.claim('dead')
      await stage.silence()
      const { results } = await play([stage.claiming('a'), stage.claiming('b')], schedule)
      const b = results[1]!.status
      const a = results[0]?.status
      expect([a, b], `${schedule}`).to.be.deep.oneOf([
        [undefined, 'acquired'],
        [undefined, 'leased'],
        ['acquired', 'leased'],
        ['leased', 'acquired'],
      ])
      if (b === 'leased') expect((await stage.claim('a')).status, 'a has it').to.equal('acquired')
    }
  })

  it('meets no deadlock where batches name the same messages in other orders, and the same silent owners', () =>
    explore(async (schedule) => {
      const { claimed } = await twoSilentOwners()
      const played = await play([claimed('c'), claimed('d', true)], schedule)
      expect(played.results.map(all)).to.be.deep.oneOf([
        ['acquired acquired acquired', 'leased leased leased'],
        ['leased leased leased', 'acquired acquired acquired'],
      ])
      return played
    }))

  it('meets no deadlock, and leaves each owner its own, where both were away and ask for each other’s', () =>
    explore(async (schedule) => {
      const { claimed } = await twoSilentOwners()
      const played = await play([claimed('a'), claimed('b', true)], schedule)
      expect(played.results.map(all)).to.deep.equal(['acquired acquired leased', 'acquired leased leased'])
      return played
    }))

  /** Three messages, two of a and one of b, both silent; and how all are claimed, in either order. */
  async function twoSilentOwners() {
    const stage = new Stage()
    const ids = [v7(), v7(), v7()]
    await stage.claimMany('a', ids.slice(0, 2))
    await stage.claimMany('b', ids.slice(2))
    await stage.silence()
    const claimed =
      (owner: string, reversed = false) =>
      (pool: SqlPool) =>
        stage.claimMany(owner, reversed ? ids.toReversed() : ids, pool)
    return { claimed }
  }

  const all = (answers: readonly ClaimResult[] | undefined) => answers!.map(({ status }) => status).join(' ')
})

function grant(answer: ClaimResult): { readonly fencingToken: number } {
  expect(answer.status).to.equal('acquired')
  return answer as Extract<ClaimResult, { status: 'acquired' }>
}

/** Actor 0 takes some of its steps, beginning after some of actor 1's, and dies. */
function* deaths(steps: number): Generator<Schedule> {
  for (let before = 0; before < 6; before++) {
    for (let own = 0; own < steps; own++) yield [...Array(before).fill(1), ...Array(own).fill(0), -1]
  }
}

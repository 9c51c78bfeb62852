// A store that is frozen (SIGSTOP; a paused VM is the same) for longer than a lease, while a claim lies in its socket: when it thaws,
// that claim is executed before the renewals of those who hold what it asks for.
//
//   A claims ─▶ B renews ─▶ (the leases run out) ─▶ thaw ─▶ A's claim is executed ─▶ B's renewal ─▶ B completes

import { setTimeout as pass } from 'node:timers/promises'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { Pool } from 'pg'
import { v7 } from 'uuid'
import type { Claim, ClaimResult, IdempotencyStore, Scope } from '../../lib/idempotency/idempotency.ts'
import { PostgresIdempotencyStore } from '../../lib/idempotency/postgres.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { migrate } from '../../lib/sql/migrate.ts'
import { eventually } from '../support/eventually.ts'
import { type Server, startPostgres, startRedis } from '../support/services.ts'

const LEASE_MS = 1_500
/** Longer than the store may be frozen. */
const PATIENCE_MS = 30_000
const scopeOf = (): Scope => ({ name: `frozen ${v7()}`, retentionMs: 600_000, leaseMs: LEASE_MS, maxStarts: 3 })
const claimOf = (id: string, sequence: number): Claim => ({
  id,
  digest: undefined,
  generation: 0,
  attempt: 1,
  sequence,
})
const completed = { state: 'completed' } as const

/** Two instances of a consumer, each with a connection of its own; B runs a message of which A has a copy. */
class Scene {
  readonly scope = scopeOf()
  readonly id = v7()
  readonly a: IdempotencyStore
  readonly b: IdempotencyStore
  #token = 0

  constructor(a: IdempotencyStore, b: IdempotencyStore) {
    this.a = a
    this.b = b
  }

  /** Both are known, connected, and have just renewed. */
  async begins(): Promise<void> {
    await this.a.renew(this.scope, 'a')
    await this.b.renew(this.scope, 'b')
    const [granted] = await this.b.claim(this.scope, 'b', [claimOf(this.id, 1)])
    this.#token = (granted as Extract<ClaimResult, { status: 'acquired' }>).fencingToken
    expect((await this.claimsOfA(1)).status).to.equal('leased')
    await this.a.renew(this.scope, 'a')
    await this.b.renew(this.scope, 'b')
  }

  async claimsOfA(sequence: number): Promise<ClaimResult> {
    const [answer] = await this.a.claim(this.scope, 'a', [claimOf(this.id, sequence)])
    return answer!
  }

  async completionOfB(): Promise<string> {
    const settlement = { id: this.id, fencingToken: this.#token, digest: undefined, ending: completed }
    const [result] = await this.b.settle(this.scope, 'b', [settlement])
    return result!
  }
}

describe('a store that was frozen for longer than a lease', function () {
  this.timeout(120_000)

  describe('Redis', () => {
    let server: Server
    before(async () => {
      server = await startRedis()
    })
    after(() => server.close())

    /** How long, from the last sign of life of both. */
    for (const [which, frozenMs] of [
      ['all leases have run out', LEASE_MS * 1.1],
      ['the lease of the holder has run out, and that of the asker not yet', LEASE_MS * 0.9],
    ] as const)
      it(`lets a claim that lay in its socket take nobody over, when ${which}`, async () => {
        const open = () => new RedisIdempotencyStore({ url: server.url }, { commandTimeoutMs: PATIENCE_MS })
        await using a = open()
        await using b = open()
        const scene = new Scene(a, b)
        await scene.begins()
        if (frozenMs < LEASE_MS) await agedHolder(server, scene.scope)
        await server.freeze()
        const claimed = scene.claimsOfA(2)
        await pass(frozenMs)
        await server.thaw()
        // The renewal comes after the answer: of two sockets, Redis may read either first.
        expect(await claimed).to.deep.equal({ status: 'leased', retryAfterMs: LEASE_MS })
        expect(await b.renew(scene.scope, 'b')).to.equal('lapsed')
        expect(await scene.completionOfB()).to.equal('settled')
        expect((await scene.claimsOfA(2)).status).to.equal('completed')
      })

    it('lets a claim that was given up long ago take nobody over', async () => {
      const open = () => new RedisIdempotencyStore({ url: server.url }, { commandTimeoutMs: LEASE_MS / 2 })
      await using a = open()
      await using b = open()
      const scene = new Scene(a, b)
      await scene.begins()
      await server.freeze()
      const claimed = scene.claimsOfA(2).catch((error: Error) => error)
      const renewed = b.renew(scene.scope, 'b').catch((error: Error) => error)
      expect([await claimed, await renewed]).to.satisfy((ends: unknown[]) => ends.every((end) => end instanceof Error))
      await pass(LEASE_MS * 0.6)
      await server.thaw()
      await eventually(() => a.look(scene.scope, [scene.id]))
      expect(await eventually(() => scene.completionOfB())).to.equal('settled')
      expect((await scene.claimsOfA(2)).status).to.equal('completed')
    })
  })

  describe('Postgres', () => {
    let server: Server
    before(async () => {
      server = await startPostgres()
    })
    after(() => server.close())

    it('lets a claim that lay in its socket take nobody over', async () => {
      const pools = [0, 1].map(() => new Pool({ connectionString: server.url, max: 1 }).on('error', () => {}))
      const [a, b] = pools.map((pool) => new PostgresIdempotencyStore({ pool, statementTimeoutMs: PATIENCE_MS }))
      await migrate(pools[0]!)
      const scene = new Scene(a!, b!)
      await scene.begins()
      await server.freeze()
      const claimed = scene.claimsOfA(2)
      await pass(LEASE_MS * 1.1)
      await server.thaw()
      expect(await claimed).to.deep.equal({ status: 'leased', retryAfterMs: LEASE_MS })
      expect(await b!.renew(scene.scope, 'b')).to.equal('lapsed')
      expect(await scene.completionOfB()).to.equal('settled')
      expect((await scene.claimsOfA(2)).status).to.equal('completed')
      await Promise.all(pools.map((pool) => pool.end()))
    })

    // A connection each: the renewal needs fewer round trips than the claim that was sent before it.
    it('lets a claim take nobody over that lay in its socket beside a renewal of its own owner', async () => {
      const pools = [2, 1].map((max) => new Pool({ connectionString: server.url, max }).on('error', () => {}))
      const [a, b] = pools.map((pool) => new PostgresIdempotencyStore({ pool, statementTimeoutMs: PATIENCE_MS }))
      await migrate(pools[0]!)
      const scene = new Scene(a!, b!)
      await Promise.all([pools[0]!.query('SELECT pg_sleep(0.1)'), pools[0]!.query('SELECT pg_sleep(0.1)')])
      await scene.begins()
      await server.freeze()
      const claimed = scene.claimsOfA(2)
      const renewed = a!.renew(scene.scope, 'a')
      await pass(LEASE_MS * 1.1)
      await server.thaw()
      expect((await claimed).status).to.equal('leased')
      expect(await renewed).to.equal('lapsed')
      expect(await b!.renew(scene.scope, 'b')).to.equal('lapsed')
      expect(await scene.completionOfB()).to.equal('settled')
      await Promise.all(pools.map((pool) => pool.end()))
    })
  })
})

/** B renewed a third of a lease before A, as those do that renew three times per lease. */
async function agedHolder(server: Server, scope: Scope): Promise<void> {
  const client = new Redis(server.url)
  for (const key of await client.keys(`surehop:{${scope.name}:?}:o`)) {
    const entry = (await client.hgetBuffer(key, 'b'))!
    entry.writeDoubleLE(entry.readDoubleLE(0) - LEASE_MS / 3, 0)
    await client.hset(key, 'b', entry)
  }
  client.disconnect()
}

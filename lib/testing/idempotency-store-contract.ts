/**
 * What every `IdempotencyStore` must do, as named cases that any test framework can run.
 *
 *     for (const { name, run } of idempotencyStoreContract({ name: 'my store', open })) it(name, run)   // mocha, vitest
 *     for (const { name, run } of idempotencyStoreContract({ name: 'my store', open })) test(name, run) // node:test
 *
 * Promises: cases are independent, use scopes of their own, close what they open, and end within about a second each; a store that
 * answers slowly is given longer leases, and takes longer.
 * Does NOT cover: what happens while the backend is away, and two stores on one backend, in two processes, since it opens one: a
 * store that keeps something in its own memory, such as a lock, passes here and fails there. Those are for the backend's own tests.
 */

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import type { ClaimResult, IdempotencyStore } from '../idempotency/idempotency.ts'
import { racePromises } from './idempotency-store-races.ts'
import {
  Bench,
  bodyA,
  bodyB,
  bothKinds,
  completed,
  dead,
  failed,
  type Grant,
  returned,
  until,
  verdicts,
} from './store-bench.ts'

/** One promise of the contract. */
export interface ContractCase {
  /** What is promised, with the name of the store in front. */
  readonly name: string
  /** Rejects with an `AssertionError` if the promise is not kept. */
  readonly run: () => Promise<void>
}

/** What the suite needs. */
export interface IdempotencyStoreContractOptions {
  /** Name of the store, for the names of the cases. */
  readonly name: string
  /** Opens a store, called once per case. It may share its backend with others: scopes are unique. */
  readonly open: () => IdempotencyStore | Promise<IdempotencyStore>
}

/** The cases for one store, to be handed to the test framework of your choice. */
export function idempotencyStoreContract(options: IdempotencyStoreContractOptions): readonly ContractCase[] {
  return Object.entries({ ...promises, ...racePromises }).map(([promise, keep]) => ({
    name: `${options.name} ${promise}`,
    run: async () => {
      const store = await options.open()
      try {
        await keep(new Bench(store))
      } finally {
        await store.close()
      }
    },
  }))
}

/** Longer than what an answer takes; and what two clocks may differ by in it, ms. */
const RETENTION_MS = 300
const TICK_MS = 10
/** So often a case that the machine held up is tried. */
const TRIES_MAX = 5

const promises: Readonly<Record<string, (t: Bench) => Promise<void>>> = {
  async 'grants an unknown id'(t) {
    for (const id of bothKinds()) {
      const grant = await t.grant('a', id, { attempt: 4 })
      assert.deepEqual([grant.attempt, grant.starts], [4, 1])
      assert.ok(Number.isSafeInteger(grant.fencingToken) && grant.fencingToken > 0)
    }
  },

  async 'answers each claim by itself, in the order asked'(t) {
    const done = v7()
    await t.end(done, completed)
    const [held, heldToo] = [v7(), v7()]
    await t.grant('b', held)
    await t.grant('b', heldToo)
    const claims = [held, v7(), done, 'text', heldToo].map((id) => t.claimOf(id))
    const answers = await t.store.claim(t.scope, 'a', claims)
    assert.deepEqual(
      answers.map(({ status }) => status),
      ['leased', 'acquired', 'completed', 'acquired', 'leased'],
    )
    assert.deepEqual(await t.store.claim(t.scope, 'a', []), [])
    assert.deepEqual(await t.store.settle(t.scope, 'a', []), [])
  },

  async 'gives a claim repeated after a lost reply the same answer, and counts no start'(t) {
    for (const id of bothKinds()) {
      const claim = t.claimOf(id)
      const [first] = await t.store.claim(t.scope, 'a', [claim])
      const [again] = await t.store.claim(t.scope, 'a', [claim])
      assert.deepEqual(again, first)
    }
  },

  async 'tells the others when to ask again'(t) {
    const id = v7()
    await t.grant('a', id)
    const answer = await t.claim('b', id)
    assert.equal(answer.status, 'leased')
    const wait = (answer as Extract<ClaimResult, { status: 'leased' }>).retryAfterMs
    assert.ok(wait >= 250 && wait <= t.scope.leaseMs / 3, `retryAfterMs is ${wait}`)
  },

  async 'keeps completed final, for every generation'(t) {
    for (const id of bothKinds()) {
      const before = Date.now()
      await t.end(id, completed)
      for (const generation of [0, 1, 7]) {
        const answer = await t.claim('b', id, { generation })
        assert.equal(answer.status, 'completed')
        const { completedAt } = answer as Extract<ClaimResult, { status: 'completed' }>
        assert.ok(completedAt > before - 90_000 && completedAt < Date.now() + 30_000, `completedAt is ${completedAt}`)
      }
    }
  },

  async 'lets the next owner take over from one that left, with a greater token'(t) {
    for (const id of bothKinds()) {
      const first = await t.grant('a', id)
      await t.leave('a')
      const second = await t.grant('b', id)
      assert.ok(second.fencingToken > first.fencingToken)
      assert.equal(second.starts, 2)
    }
  },

  async 'lets the next owner take over from one that fell silent'(t) {
    const short = await t.brief()
    const id = v7()
    await short.grant('a', id)
    const answer = await until(
      () => short.claim('b', id),
      ({ status }) => status === 'acquired',
    )
    assert.equal((answer as Grant).starts, 2)
  },

  async 'lets an owner that was away itself take nobody over, until it asks again'(t) {
    // As a claim is executed that lay in the socket of a frozen store, before the renewals of those who hold what it asks for.
    const short = await t.brief()
    const [held, left, parked, free] = [v7(), v7(), `text ${randomUUID()}`, v7()]
    const grants = [await short.grant('b', held), await short.grant('b', parked)]
    await short.grant('gone', left)
    await short.leave('gone')
    assert.equal(await short.store.renew(short.scope, 'a'), 'held')
    await until(
      () => short.look(held),
      (view) => view.state === 'leased' && !view.live,
    )
    await pause(2 * short.scope.leaseMs)
    const long = new Bench(t.store, { ...short.scope, leaseMs: 60_000 })
    const claims = [held, left, parked, free].map((id) => long.claimOf(id))
    const answers = await long.store.claim(long.scope, 'a', claims)
    assert.deepEqual(
      answers.map(({ status }) => status),
      ['leased', 'acquired', 'leased', 'acquired'],
    )
    for (const answer of answers) if (answer.status === 'leased') assert.ok(answer.retryAfterMs >= 250)
    const view = { state: 'leased', owner: 'b', attempt: 1, generation: 0, live: false }
    assert.deepEqual(await long.look(held), view)
    assert.equal(await long.settle('b', held, grants[0]!.fencingToken, completed), 'settled')
    const [done, , taken] = await long.store.claim(long.scope, 'a', claims)
    assert.equal(done!.status, 'completed')
    assert.deepEqual([taken!.status, (taken as Grant).starts], ['acquired', 2])
    assert.equal(await long.settle('b', parked, grants[1]!.fencingToken, completed), 'lost')
    assert.equal(await long.store.renew(long.scope, 'a'), 'lapsed')
  },

  async 'keeps the leases of an owner that renews'(t) {
    await undisturbed(t, async (short) => {
      const { leaseMs } = short.scope
      const id = v7()
      let renewedAt = performance.now()
      await short.grant('a', id)
      for (const end = Date.now() + 3 * leaseMs; Date.now() < end; await pause(leaseMs / 5)) {
        const sentAt = performance.now()
        const answers = [await short.store.renew(short.scope, 'a'), (await short.claim('b', id)).status]
        if (performance.now() - renewedAt > leaseMs - TICK_MS) return false
        assert.deepEqual(answers, ['held', 'leased'])
        renewedAt = sentAt
      }
      return true
    })
  },

  async 'tells an owner that it renewed too late, also when a claim has revived it meanwhile'(t) {
    const id = v7()
    const short = await undisturbed(t, async (tried) => {
      const grantedAt = performance.now()
      await tried.grant('a', id)
      const state = await tried.store.renew(tried.scope, 'a')
      if (performance.now() - grantedAt > tried.scope.leaseMs - TICK_MS) return false
      assert.equal(state, 'held')
      return true
    })
    await until(
      () => short.look(id),
      (view) => view.state === 'leased' && !view.live,
    )
    await short.claim('a', id)
    const patient = { ...short.scope, leaseMs: 60_000 }
    assert.equal(await short.store.renew(patient, 'a'), 'lapsed')
    assert.equal(await short.store.renew(patient, 'a'), 'held')
  },

  async 'changes nothing for an owner that was taken over'(t) {
    for (const id of bothKinds()) {
      const old = await t.grant('a', id)
      await t.leave('a')
      const current = await t.grant('b', id)
      const before = await t.look(id)
      for (const ending of verdicts) {
        assert.equal(await t.settle('a', id, old.fencingToken, ending), 'lost')
        assert.equal(await t.settle('a', id, current.fencingToken, ending), 'lost')
      }
      assert.deepEqual(await t.look(id), before)
      assert.equal(await t.settle('b', id, current.fencingToken, completed), 'settled')
      assert.equal(await t.settle('a', id, old.fencingToken, completed), 'already')
    }
  },

  async 'grants the same owner anew for another delivery'(t) {
    const id = v7()
    const first = await t.grant('a', id)
    const second = await t.grant('a', id)
    assert.ok(second.fencingToken > first.fencingToken)
    assert.equal(second.starts, 2)
    assert.equal(await t.settle('a', id, first.fencingToken, completed), 'lost')
  },

  async 'changes nothing for a claim that comes late, behind a later one of its owner'(t) {
    for (const id of bothKinds()) {
      const early = t.claimOf(id)
      await t.store.claim(t.scope, 'a', [early])
      const { fencingToken } = await t.grant('a', id, { attempt: 2 })
      const before = await t.look(id)
      for (const late of [early, { ...early, generation: 1 }]) {
        const [answer] = await t.store.claim(t.scope, 'a', [late])
        assert.equal(answer?.status, 'leased')
      }
      assert.deepEqual(await t.look(id), before)
      assert.equal(await t.settle('a', id, fencingToken, completed), 'settled')
    }
  },

  async 'releases a failed attempt: older copies are behind, the next attempt runs with a clean count of starts'(t) {
    for (const id of bothKinds()) {
      const first = await t.end(id, failed(2))
      assert.deepEqual(await t.look(id), { state: 'released', attempt: 2, generation: 0 })
      const { fencingToken } = first
      assert.deepEqual(await t.claim('b', id, { attempt: 1 }), { status: 'ahead', attempt: 2, fencingToken })
      const next = await t.grant('b', id, { attempt: 2 })
      assert.deepEqual([next.attempt, next.starts], [2, 1])
      assert.ok(next.fencingToken > first.fencingToken)
    }
  },

  async 'settles a failed attempt dead for whoever is told of it, until somebody runs the next one'(t) {
    for (const id of bothKinds()) {
      const { fencingToken } = await t.end(id, failed(2))
      assert.equal((await t.claim('b', id)).status, 'ahead')
      assert.equal(await t.settle('b', id, fencingToken, dead(0), { digest: bodyB }), 'settled')
      assert.equal(await t.settle('b', id, fencingToken, dead(0)), 'settled')
      assert.deepEqual(await t.look(id), { state: 'dead', generation: 0 })
      assert.deepEqual(await t.claim('c', id, { attempt: 2 }), { status: 'superseded', generation: 0 })
      const replayed = await t.grant('c', id, { generation: 1 })
      assert.deepEqual([replayed.attempt, replayed.starts], [1, 1])
    }
    for (const id of bothKinds()) {
      const { fencingToken } = await t.end(id, failed(2))
      const next = await t.grant('b', id, { attempt: 2 })
      assert.equal(await t.settle('a', id, fencingToken, dead(0)), 'lost')
      assert.equal(await t.settle('b', id, next.fencingToken, returned), 'settled')
      assert.equal(await t.settle('b', id, next.fencingToken, dead(0)), 'lost')
    }
  },

  async 'does not count a start that was handed back'(t) {
    const id = v7()
    await t.end(id, returned, { attempt: 2 })
    assert.deepEqual(await t.look(id), { state: 'released', attempt: 2, generation: 0 })
    const next = await t.grant('b', id, { attempt: 2 })
    assert.deepEqual([next.attempt, next.starts], [2, 1])
  },

  async 'parks what was started too often without an end, until it is settled dead'(t) {
    for (const id of bothKinds()) {
      for (let n = 1; n <= t.scope.maxStarts; n++) {
        assert.equal((await t.grant(`dies ${n}`, id)).starts, n)
        await t.leave(`dies ${n}`)
      }
      const parked = await exhaust(t, 'd', id)
      await t.leave('d')
      const again = await exhaust(t, 'e', id)
      assert.ok(again.fencingToken > parked.fencingToken)
      assert.deepEqual([again.starts, again.attempt], [t.scope.maxStarts, 1])
      assert.equal((await t.claim('f', id)).status, 'leased')
      assert.equal(await t.settle('d', id, parked.fencingToken, dead(0)), 'lost')
      assert.equal(await t.settle('e', id, again.fencingToken, dead(0)), 'settled')
      assert.deepEqual(await t.claim('f', id), { status: 'superseded', generation: 0 })
    }
  },

  async 'gives a repeated claim of a parked message the same answer'(t) {
    const id = v7()
    const eager = t.with({ maxStarts: 1 })
    await eager.grant('a', id)
    await eager.leave('a')
    const claim = eager.claimOf(id)
    const [first] = await eager.store.claim(eager.scope, 'b', [claim])
    assert.equal(first?.status, 'exhausted')
    assert.deepEqual(await eager.store.claim(eager.scope, 'b', [claim]), [first])
    assert.equal(await eager.settle('b', id, (first as Parked).fencingToken, returned), 'settled')
    await exhaust(eager, 'c', id)
  },

  async 'drops copies of a dead generation, and runs the next one from its own attempt'(t) {
    for (const id of bothKinds()) {
      const first = await t.end(id, dead(0), { attempt: 8 })
      assert.deepEqual(await t.claim('b', id), { status: 'superseded', generation: 0 })
      assert.deepEqual(await t.look(id), { state: 'dead', generation: 0 })
      const replayed = await t.grant('b', id, { generation: 1, attempt: 1 })
      assert.deepEqual([replayed.attempt, replayed.starts], [1, 1])
      assert.ok(replayed.fencingToken > first.fencingToken)
      assert.deepEqual(await t.claim('c', id), { status: 'superseded', generation: 1 })
    }
  },

  async 'prefers the newer generation, but not before the holder is done'(t) {
    const id = v7()
    await t.grant('a', id, { generation: 1, attempt: 5 })
    assert.equal((await t.claim('b', id, { generation: 2 })).status, 'leased')
    assert.deepEqual(await t.claim('b', id, { generation: 0 }), { status: 'superseded', generation: 1 })
    await t.leave('a')
    const next = await t.grant('b', id, { generation: 2, attempt: 1 })
    assert.deepEqual([next.attempt, next.starts], [1, 1])
    assert.equal(await t.settle('b', id, next.fencingToken, failed(2)), 'settled')
    assert.equal((await t.claim('c', id, { generation: 1, attempt: 9 })).status, 'superseded')
    assert.equal((await t.grant('c', id, { generation: 3, attempt: 1 })).attempt, 1)
  },

  async 'reports the same id with another body in every state'(t) {
    for (const id of bothKinds()) {
      const { fencingToken } = await t.grant('a', id)
      assert.deepEqual(await t.claim('b', id, { digest: bodyB }), { status: 'conflict' })
      assert.equal(await t.settle('a', id, fencingToken, completed), 'settled')
      assert.deepEqual(await t.claim('b', id, { digest: bodyB }), { status: 'conflict' })
    }
    for (const ending of [failed(2), returned, dead(0)]) {
      const id = v7()
      await t.end(id, ending)
      assert.deepEqual(await t.claim('b', id, { digest: bodyB, attempt: 2 }), { status: 'conflict' })
    }
  },

  async 'does not compare bodies where one side gives no digest'(t) {
    for (const id of bothKinds()) {
      const { fencingToken } = await t.grant('a', id, { digest: undefined })
      assert.equal((await t.claim('b', id, { digest: bodyB })).status, 'leased')
      assert.equal(await t.settle('a', id, fencingToken, completed, { digest: undefined }), 'settled')
      assert.equal((await t.claim('b', id, { digest: bodyB })).status, 'completed')
    }
    const id = v7()
    await t.end(id, completed)
    assert.equal((await t.claim('b', id, { digest: undefined })).status, 'completed')
  },

  async 'takes the edited body of a newer generation'(t) {
    const id = v7()
    await t.end(id, dead(0))
    const { fencingToken } = await t.grant('a', id, { generation: 1, digest: bodyB })
    assert.equal((await t.claim('b', id, { generation: 1, digest: bodyA })).status, 'conflict')
    assert.equal(await t.settle('a', id, fencingToken, completed, { digest: bodyB }), 'settled')
    assert.equal((await t.claim('b', id, { generation: 1, digest: bodyB })).status, 'completed')
  },

  async 'accepts a settlement repeated after a lost reply, and no other ending'(t) {
    for (const ending of [failed(3), returned, dead(2)]) {
      const id = v7()
      const { fencingToken }: Grant = await t.end(id, ending)
      assert.equal(await t.settle('first', id, fencingToken, ending), 'settled')
      assert.equal(await t.settle('first', id, fencingToken, completed), 'lost')
      assert.equal(await t.settle('first', id, fencingToken, failed(4)), 'lost')
      assert.equal(await t.settle('first', id, fencingToken - 1, ending), 'lost')
    }
    for (const id of bothKinds()) {
      const { fencingToken } = await t.end(id, completed)
      assert.equal(await t.settle('first', id, fencingToken, completed), 'already')
    }
  },

  async 'records what an owner reports after the store has forgotten its lease'(t) {
    for (const [a, b, c] of [
      [v7(), v7(), v7()],
      ['a', 'b', 'c'],
    ] as const) {
      assert.equal(await t.settle('a', a, 5, completed), 'settled')
      assert.equal((await t.claim('b', a)).status, 'completed')
      assert.equal(await t.settle('a', b, 5, failed(4)), 'settled')
      assert.deepEqual(await t.claim('b', b, { attempt: 3 }), { status: 'ahead', attempt: 4, fencingToken: 5 })
      assert.equal(await t.settle('a', c, 5, dead(1)), 'settled')
      assert.deepEqual(await t.claim('b', c, { generation: 1 }), { status: 'superseded', generation: 1 })
    }
    const id = v7()
    assert.equal(await t.settle('a', id, 5, returned), 'settled')
    assert.equal((await t.grant('b', id)).starts, 1)
  },

  async 'settles each of many by itself, in the order asked'(t) {
    const ids = [v7(), v7(), 'text']
    const claims = ids.map((id) => t.claimOf(id))
    const grants = (await t.store.claim(t.scope, 'a', claims)) as Grant[]
    const ends = ids.map((id, i) => ({ id, fencingToken: grants[i]!.fencingToken, digest: bodyA, ending: completed }))
    const forged = { ...ends[1]!, fencingToken: 1 }
    const answers = await t.store.settle(t.scope, 'a', [forged, ...ends, ...ends])
    assert.deepEqual(answers, ['lost', 'settled', 'settled', 'settled', 'already', 'already', 'already'])
  },

  async 'keeps thousands of ids apart in one call'(t) {
    const ids = Array.from({ length: 3_000 }, (_, i) => (i % 3 === 0 ? `id ${i}` : v7()))
    const claims = ids.map((id) => t.claimOf(id))
    const grants = (await t.store.claim(t.scope, 'a', claims)) as Grant[]
    assert.ok(grants.every(({ status }) => status === 'acquired'))
    const half = ids.flatMap((id, i) =>
      i % 2 === 0 ? [{ id, fencingToken: grants[i]!.fencingToken, digest: bodyA, ending: completed }] : [],
    )
    assert.ok((await t.store.settle(t.scope, 'a', half)).every((answer) => answer === 'settled'))
    const views = await t.store.look(t.scope, ids)
    assert.ok(views.every(({ state }, i) => state === (i % 2 === 0 ? 'completed' : 'leased')))
  },

  async 'never takes one id for another'(t) {
    const id = '0192f3a4-b5c6-7d7e-8f90-a1b2c3d4e5f6'
    const siblings = [...id].flatMap((c, at) =>
      c === '-' ? [] : [`${id.slice(0, at)}${c === '0' ? '1' : '0'}${id.slice(at + 1)}`],
    )
    const long = 'x'.repeat(10_000)
    const others = [
      id.toUpperCase(),
      ` ${id}`,
      '',
      ' ',
      '\u0000',
      'ä',
      '\ud800',
      '\ud801',
      '{',
      '}',
      long,
      `${long}x`,
      ...siblings,
    ]
    await t.end(id, completed)
    const views = await t.store.look(t.scope, others)
    assert.ok(views.every(({ state }) => state === 'absent'))
    const answers = await t.store.claim(
      t.scope,
      'a',
      others.map((other) => t.claimOf(other)),
    )
    assert.ok(answers.every(({ status }) => status === 'acquired'))
    const later = await Promise.all(others.map((other) => t.claim('b', other)))
    assert.ok(later.every(({ status }) => status === 'leased'))
  },

  async 'keeps scopes apart, whatever their names'(t) {
    const id = v7()
    await t.end(id, completed)
    for (const name of [`${t.scope.name}:`, `{${t.scope.name}}`, `}${t.scope.name}`, `%7b${t.scope.name}%7d`]) {
      await t.with({ name }).grant('a', id)
    }
  },

  async 'changes nothing by looking'(t) {
    const id = v7()
    assert.deepEqual(await t.look(id), { state: 'absent' })
    const { fencingToken } = await t.grant('a', id, { generation: 2, attempt: 3 })
    const seen = { state: 'leased', owner: 'a', attempt: 3, generation: 2, live: true }
    assert.deepEqual(await t.look(id), seen)
    assert.deepEqual(await t.look(id), seen)
    await t.leave('a')
    assert.deepEqual(await t.look(id), { ...seen, live: false })
    assert.equal(await t.settle('a', id, fencingToken, completed), 'settled')
    assert.equal((await t.look(id)).state, 'completed')
  },

  async 'forgets an ended record after the retention, not before, and counts it from the end'(t) {
    const forgetful = await t.brief({ leaseMs: t.scope.leaseMs, retentionMs: RETENTION_MS })
    const { retentionMs } = forgetful.scope
    for (const id of bothKinds()) {
      const first = await forgetful.grant('a', id)
      await pause(retentionMs / 2)
      const ended = performance.now()
      assert.equal(await forgetful.settle('a', id, first.fencingToken, completed), 'settled')
      await until(
        () => forgetful.look(id),
        ({ state }) => state === 'absent',
      )
      const rememberedMs = performance.now() - ended
      assert.ok(rememberedMs >= retentionMs - TICK_MS, `forgotten after ${rememberedMs} of ${retentionMs} ms`)
      assert.ok((await forgetful.grant('a', id)).fencingToken > first.fencingToken)
    }
  },

  async 'may be closed twice'(t) {
    await t.grant('a', v7())
    await t.store.close()
    await t.store.close()
    await assert.rejects(t.claim('a', v7()))
  },
}

/**
 * Tries it with a lease as short as may be. Where the machine stood still for longer than that, which `keep` notices and answers with
 * `false`, nothing is known of the store: it is tried again, with a longer one.
 * @returns the bench on which it was kept
 */
async function undisturbed(t: Bench, keep: (short: Bench) => Promise<boolean>): Promise<Bench> {
  let short = await t.brief()
  for (let tries = 1; !(await keep(short)); tries++) {
    const { leaseMs } = short.scope
    assert.ok(
      tries < TRIES_MAX,
      `this machine stood still for longer than ${leaseMs} ms: try again when it has less to do`,
    )
    short = t.with({ leaseMs: 2 * leaseMs })
  }
  return short
}

type Parked = Extract<ClaimResult, { status: 'exhausted' }>

async function exhaust(t: Bench, owner: string, id: string): Promise<Parked> {
  const answer = await t.claim(owner, id)
  assert.equal(answer.status, 'exhausted')
  return answer as Parked
}

// The Postgres inbox under the suites that every store must pass: the contract, the model, owners that crash.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { v7 } from 'uuid'
import type { Scope } from '../../lib/idempotency/idempotency.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'
import { idempotencyStoreContract } from '../../lib/testing/index.ts'
import { command, HOUR, Side } from './model-commands.ts'
import { type Step, scopeOf, step, World } from './owners-world.ts'
import { sharedInbox } from './postgres-under-test.ts'

describe('the Postgres inbox', () => {
  const inbox = sharedInbox()
  for (const { name, run } of idempotencyStoreContract({ name: 'PostgresIdempotencyStore', open: () => inbox.open() }))
    it(name, run)

  const wipe = async ({ name }: Scope) => {
    await inbox.pool.query(`DELETE FROM ${inbox.schema}.inbox WHERE scope = $1`, [name])
    await inbox.pool.query(`DELETE FROM ${inbox.schema}.inbox_owners WHERE scope = $1`, [name])
  }

  /** All owners were silent for longer than their lease: what time would do, without waiting. */
  const silence = ({ name }: Scope) =>
    inbox.pool.query(
      `UPDATE ${inbox.schema}.inbox_owners SET until = least(until, clock_timestamp()) WHERE scope = $1`,
      [name],
    )

  it('answers as the pure decisions do, whatever is asked of it', async function () {
    this.timeout(120_000)
    await using store = inbox.open()
    await fc.assert(
      fc.asyncProperty(fc.array(command, { minLength: 1, maxLength: 25 }), async (commands) => {
        const scope: Scope = { name: randomUUID(), retentionMs: 24 * HOUR, leaseMs: HOUR, maxStarts: 3 }
        const ids = [v7(), randomUUID(), 'x'.repeat(1_000) + randomUUID(), `\0${randomUUID()}`]
        let nowMs = Date.now()
        let model = new MemoryIdempotencyStore({ now: () => ++nowMs })
        let presenceIsEqual = true
        const left = new Side(() => model, scope, ids)
        const right = new Side(() => store, scope, ids)
        for (const command of commands) {
          if (command.kind === 'silence') await silence(scope)
          if (command.kind === 'silence') nowMs += 2 * HOUR
          if (command.kind === 'wipe') await wipe(scope)
          if (command.kind === 'wipe') model = new MemoryIdempotencyStore({ now: () => ++nowMs })
          presenceIsEqual &&= command.kind !== 'wipe'
          const [expected, actual] = [await left.answer(command), await right.answer(command)]
          if (command.kind !== 'renew' || presenceIsEqual) expect(actual).to.deep.equal(expected)
          expect(await right.views()).to.deep.equal(await left.views())
        }
        await wipe(scope)
      }),
      { numRuns: Number(process.env['FC_RUNS'] ?? 150) },
    )
  })

  it('keeps the promises to owners that crash, lose replies and come back', async function () {
    this.timeout(120_000)
    await using store = inbox.open()
    const run = async (steps: readonly Step[]) => {
      const scope = scopeOf()
      const befall = { wipe: () => wipe(scope), silence: async () => void (await silence(scope)) }
      await new World(store, scope, befall).run(steps)
      await wipe(scope)
    }
    await fc.assert(fc.asyncProperty(fc.array(step(3), { maxLength: 40 }), run), { numRuns: 60 })
  })
})

// What every decision store must do. One suite, run on each backend.

import { expect } from 'chai'
import { v7 } from 'uuid'
import type { DecisionScope, DecisionStore } from '../../lib/transactional-message/decisions.ts'
import { UNDECIDED } from '../../lib/transactional-message/decisions.ts'
import { eventually } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'

/** A scope that no other test uses. */
export function freshScope(retentionMs = 60_000): DecisionScope {
  return { name: unique('payments'), retentionMs }
}

/** `open` gives a store; `second` another one over the same data, as another process would have; `young` one that has not swept yet. */
export function decisionStoreContract(
  open: () => DecisionStore,
  second: () => DecisionStore = open,
  young: () => DecisionStore = open,
): void {
  it('knows nothing of a transaction before anybody wrote of it', async () => {
    expect(await open().look(freshScope(), ['a', 'b'])).to.deep.equal([UNDECIDED, UNDECIDED])
    expect(await open().look(freshScope(), [])).to.deep.equal([])
  })

  it('lets the first decision stand, and tells everybody who comes later', async () => {
    const scope = freshScope()
    const before = Date.now()
    const first = await open().decide(scope, 't', 'rolled-back', 'check')
    expect(first).to.include({ decision: 'rolled-back', by: 'check', published: undefined, checks: 0 })
    expect(first.decidedAt).to.be.within(before - 5_000, Date.now() + 5_000)
    expect(await second().decide(scope, 't', 'committed', 'service')).to.deep.equal(first)
    expect(await second().look(scope, ['t'])).to.deep.equal([first])
  })

  it('is harmless to repeat', async () => {
    const scope = freshScope()
    const first = await open().decide(scope, 't', 'committed', 'service')
    expect(await open().decide(scope, 't', 'committed', 'operator')).to.deep.equal(first)
    await open().published(scope, 't', 'half')
    await open().published(scope, 't', 'half')
    expect(await open().look(scope, ['t'])).to.deep.equal([{ ...first, published: 'half' }])
  })

  it('remembers a decision for as long again when it is repeated, and never shorter than was asked before', async () => {
    const { name } = freshScope()
    const brief = { name, retentionMs: 1_000 }
    const first = await open().decide(brief, 'again', 'committed', 'service')
    expect(await second().decide({ name, retentionMs: 60_000 }, 'again', 'committed', 'check')).to.deep.equal(first)
    const long = await open().decide({ name, retentionMs: 60_000 }, 'long', 'committed', 'service')
    expect(await second().decide(brief, 'long', 'committed', 'check')).to.deep.equal(long)
    await second().checked(brief, 'long')
    await open().decide(brief, 'once', 'committed', 'service')
    await eventually(async () => {
      // Where what has expired is read until it is swept, the first use sweeps.
      await young().decide(freshScope(), 'other', 'committed', 'service')
      expect((await open().look({ name, retentionMs: 60_000 }, ['once']))[0]).to.deep.equal(UNDECIDED)
    })
    expect(await open().look(brief, ['again', 'long'])).to.deep.equal([first, { ...long, checks: 1 }])
  })

  it('gives many deciders at the same time one answer', async () => {
    const scope = freshScope()
    const decide = (i: number) =>
      (i % 2 ? open() : second()).decide(scope, 't', i % 3 ? 'committed' : 'rolled-back', i % 2 ? 'service' : 'check')
    const views = await Promise.all(Array.from({ length: 40 }, (_, i) => decide(i)))
    for (const view of views) expect(view).to.deep.equal(views[0])
  })

  it('counts checks, before and after the decision', async () => {
    const scope = freshScope()
    expect(await open().checked(scope, 't')).to.equal(1)
    expect(await second().checked(scope, 't')).to.equal(2)
    expect(await open().look(scope, ['t'])).to.deep.equal([{ ...UNDECIDED, checks: 2 }])
    expect(await open().decide(scope, 't', 'committed', 'check')).to.include({ decision: 'committed', checks: 2 })
    expect(await open().checked(scope, 't')).to.equal(3)
    expect((await open().look(scope, ['t']))[0]).to.include({ decision: 'committed', by: 'check', checks: 3 })
  })

  it('remembers what was published although it has forgotten the decision, and never against a rollback', async () => {
    const scope = freshScope()
    await open().published(scope, 'forgotten', 'half')
    expect((await open().look(scope, ['forgotten']))[0]).to.include({ decision: 'committed', published: 'half' })
    await open().checked(scope, 'checked')
    await open().published(scope, 'checked', 'half')
    expect((await open().look(scope, ['checked']))[0]).to.include({
      decision: 'committed',
      published: 'half',
      checks: 1,
    })
    const rolledBack = await open().decide(scope, 'back', 'rolled-back', 'service')
    await open().published(scope, 'back', 'half')
    expect(await open().look(scope, ['back'])).to.deep.equal([rolledBack])
  })

  it('keeps names and ids apart, whatever characters they are made of', async () => {
    const { name, retentionMs } = freshScope()
    await open().decide({ name: `${name}:a`, retentionMs }, 'b', 'committed', 'service')
    await open().decide({ name, retentionMs }, "x{y}'z\n—", 'rolled-back', 'service')
    expect(await open().look({ name, retentionMs }, ['a:b', 'b', "x{y}'z\n—"])).to.satisfy(
      ([one, two, three]: { decision: unknown }[]) =>
        !one!.decision && !two!.decision && three!.decision === 'rolled-back',
    )
  })

  it('looks at many in the order asked', async () => {
    const scope = freshScope()
    const ids = Array.from({ length: 700 }, () => v7())
    for (const id of ids.slice(300, 310)) await open().decide(scope, id, 'committed', 'service')
    const views = await open().look(scope, ids)
    expect(views.map(({ decision }, i) => (decision ? i : -1)).filter((i) => i >= 0)).to.deep.equal(
      Array.from({ length: 10 }, (_, i) => 300 + i),
    )
  })
}

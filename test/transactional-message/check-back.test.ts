// What is asked, when, and what becomes of the answers: the pure table first, then with a real broker and store.

import { expect } from 'chai'
import { type CheckAnswer, HEADER, MemoryDecisionStore, onEvent } from '../../lib/index.ts'
import { type Limits, nextStep, type Phase, type Verdict, waitMs } from '../../lib/transactional-message/check-back.ts'
import { UNDECIDED } from '../../lib/transactional-message/decisions.ts'
import { createTransactional } from '../../lib/transactional-message/open.ts'
import { eventually, latch } from '../support/eventually.ts'
import {
  type Bench,
  bench,
  caught,
  closeAll,
  connected,
  counts,
  event,
  exactly,
  halfOf,
  lentBroker,
  messageTo,
  nothingWaits,
  raw,
  redisDecisions,
  senderName,
  sendRaw,
  Tally,
  taken,
  toClose,
} from './setup.ts'

const LIMITS: Limits = { firstCheckMs: 10_000, checkCapMs: 300_000, checks: 15, maxAgeMs: 86_400_000 }

describe('the next step of a half message', () => {
  const phases: readonly Phase[] = ['arrived', 'due', 'asked']
  const verdicts: readonly (Verdict | undefined)[] = [undefined, 'commit', 'rollback', 'check']
  const answers: readonly (CheckAnswer | undefined)[] = [undefined, 'commit', 'rollback', 'unknown']
  const decisions = [undefined, 'committed', 'rolled-back'] as const

  it('follows the record before everybody, the operator before the check, and parks nothing that was not asked for', () => {
    let seen = 0
    for (const phase of phases)
      for (const verdict of verdicts)
        for (const answer of answers)
          for (const decision of decisions)
            for (const published of decision === 'committed' ? [undefined, 'h', 'other'] : [undefined])
              for (const checks of [0, 1, 14, 15, 16])
                for (const ageMs of [0, 86_399_999, 86_400_000]) {
                  const record = { ...UNDECIDED, decision, published, checks }
                  const step = nextStep({ phase, record, halfId: 'h', verdict, answer, ageMs }, LIMITS, 0.5)
                  const wanted = verdict === 'commit' || verdict === 'rollback' ? verdict : answer
                  seen++
                  if (decision === 'rolled-back' || published === 'h') expect(step.do).to.equal('ack')
                  else if (decision === 'committed') expect(step.do).to.equal('publish')
                  else if (wanted === 'commit' || wanted === 'rollback')
                    expect(step).to.deep.equal({
                      do: 'decide',
                      decision: wanted === 'commit' ? 'committed' : 'rolled-back',
                      by: wanted === verdict ? 'operator' : 'check',
                    })
                  else {
                    const last = checks >= 15 || ageMs >= 86_400_000
                    if (phase === 'asked') expect(step.do).to.equal(last ? 'park' : 'hold')
                    else if (phase === 'due' || last || checks === 0 || verdict === 'check')
                      expect(step.do).to.equal('ask')
                    else expect(step.do).to.equal('hold')
                  }
                }
    expect(seen).to.equal(3 * 4 * 4 * 5 * 5 * 3)
  })

  it('waits twice as long each time, at most the cap, and the last quarter by chance', () => {
    expect([1, 2, 3, 4, 5, 6, 14].map((checks) => waitMs(checks, LIMITS, 1))).to.deep.equal([
      20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000,
    ])
    expect(waitMs(1, LIMITS, 0)).to.equal(15_000)
    expect(waitMs(1_000, LIMITS, 1)).to.equal(300_000)
  })
})

/** A half message of another make, committed as by an operator, whose message is to wait 300 ms. */
async function committedAsForged({ priority = 0, aheadMs = 0 }): Promise<Bench> {
  const opened = await bench()
  const properties = JSON.stringify({ headers: {}, ...(priority ? { priority } : {}) })
  const item = { id: 'm', exchange: '', routingKey: opened.work, delayMs: 300, properties, bytes: 0 }
  const head = { v: 1, transactionId: 't', preparedAt: Date.now() + aheadMs, service: 's', messages: [item] }
  await sendRaw(`${opened.name}.half.check`, halfOf(head), { messageId: 'h', headers: { [HEADER.verdict]: 'commit' } })
  return opened
}

describe('check-back', () => {
  afterEach(closeAll)

  it('asks with id, number and time of the prepare, and sends when the answer is commit', async () => {
    const asked = new Tally<{ id: string; check: number; at: number; aborted: boolean }>()
    const answers: CheckAnswer[] = ['unknown', 'commit']
    const { payments, work, name } = await bench({
      check: (id, { check, preparedAt, signal }) => {
        asked.add({ id, check, at: preparedAt.getTime(), aborted: signal.aborted })
        return answers[check - 1]!
      },
    })
    const before = Date.now()
    await payments.prepare([messageTo(work)], { transactionId: 'order-1' })
    const [first, second] = await asked.reaches(2)
    expect(first).to.include({ id: 'order-1', check: 1, aborted: false })
    expect(first!.at).to.be.within(before, Date.now())
    expect(second!.check).to.equal(2)
    await taken(work)
    await nothingWaits(name)
    await exactly(work, 0)
  })

  it('sends nothing when the answer is rollback, and refuses the commit that comes late', async () => {
    // Apache RocketMQ accepted a commit that arrived after a check had rolled back, and sent the message.
    const working = latch()
    const { payments, work, name } = await bench({ check: () => 'rollback' })
    const rolledBack = event('transaction.decided', ({ decision }) => decision === 'rolled-back')
    const run = caught(payments.run([messageTo(work)], () => working.promise))
    expect(await rolledBack).to.include({ by: 'check' })
    await nothingWaits(name)
    working.resolve()
    const error = await run
    expect(error).to.have.property('code', 'ALREADY_ROLLED_BACK')
    expect(error.message).to.contain('by a check')
    await exactly(work, 0)
  })

  it('takes errors, hangs and nonsense for unknown, never for a rollback, and parks at last', async () => {
    const answers: (() => unknown)[] = [
      () => {
        throw new Error('database down')
      },
      () => new Promise(() => {}),
      () => 'yes',
      () => undefined,
    ]
    const { payments, work, name } = await bench({
      check: (_, { check }) => answers[check - 1]!() as CheckAnswer,
      checkTimeoutMs: 100,
      checks: 4,
    })
    const seen = new Tally<{ answer: string; error: unknown }>()
    const end = onEvent('transaction.checked', (data) => data.name === name && seen.add(data))
    toClose({ close: async () => end() })
    const parked = event('transaction.parked', (data) => data.name === name)
    const { transactionId } = await payments.prepare([messageTo(work)])
    expect(await parked).to.include({ transactionId, checks: 4 })
    expect(seen.seen.map(({ answer }) => answer)).to.deep.equal(['unknown', 'unknown', 'unknown', 'unknown'])
    for (const { error } of seen.seen) expect(error).to.be.instanceOf(Error)
    await nothingWaits(name, 1)
    await exactly(work, 0)
  })

  it('parks what is too old after one more check, and takes it up again by itself when it is decided after all', async () => {
    const { payments, work, name, decisions } = await bench({ checks: 100, maxAgeMs: 1, retentionMs: 60_000 })
    const parked = event('transaction.parked', (data) => data.name === name)
    const { transactionId } = await payments.prepare([messageTo(work)])
    expect(await parked).to.include({ checks: 1 })
    await nothingWaits(name, 1)
    const elsewhere = await (await connected()).transactional(name, {
      decisions,
      check: () => 'unknown',
      firstCheckMs: 150,
      checkCapMs: 200,
    })
    expect(await elsewhere.commit(transactionId)).to.include({ outcome: 'decided' })
    await taken(work)
    await nothingWaits(name)
  })

  it('checks back for an instance that is gone, also where that held it', async () => {
    const name = senderName()
    const decisions = redisDecisions()
    const asked = latch()
    const first = await bench({
      name,
      decisions,
      checks: 100,
      check: () => {
        asked.resolve()
        return 'unknown'
      },
    })
    const { transactionId } = await first.payments.prepare([messageTo(first.work)])
    await asked.promise
    const second = await bench({ name, decisions, checks: 100, check: () => 'commit' })
    await first.surehop.close()
    const [message] = await taken(first.work)
    expect(message!.properties.headers?.[HEADER.transactionId]).to.equal(transactionId)
    await nothingWaits(name)
    expect(second.payments.undecided).to.equal(0)
  })

  it('hands back what it has held for long, before the broker would take it away, and goes on with its schedule', async () => {
    const { work, decisions } = await bench()
    const name = senderName()
    const numbers = new Tally<number>()
    const lent = await lentBroker()
    const payments = toClose(
      createTransactional(
        name,
        {
          decisions,
          firstCheckMs: 100,
          checkCapMs: 400,
          checks: 100,
          check: (_, { check }) => {
            numbers.add(check)
            return check < 6 ? 'unknown' : 'commit'
          },
        },
        { ...lent, holdMs: 250 },
      ),
    )
    await payments.start()
    await payments.prepare([messageTo(work)])
    await taken(work)
    expect(numbers.seen).to.deep.equal([1, 2, 3, 4, 5, 6])
    await nothingWaits(name)
  })

  it('holds no more than maxUndecided, and says so when it does', async () => {
    let answer: CheckAnswer = 'unknown'
    const { payments, work, name } = await bench({ check: () => answer, maxUndecided: 2, checks: 1_000 })
    for (let i = 0; i < 5; i++) await payments.prepare([messageTo(work, i)])
    await eventually(() => payments.undecided === 2 && payments.problems.join().includes('maxUndecided'))
    await eventually(async () => expect((await counts(`${name}.half.check`)).messages).to.equal(3))
    answer = 'commit'
    await taken(work, 5)
    await nothingWaits(name)
    expect(payments.problems).to.deep.equal([])
  })

  it('runs no more checks at a time than asked for', async () => {
    let running = 0
    let most = 0
    const { payments, work } = await bench({
      concurrency: 2,
      check: async () => {
        most = Math.max(most, ++running)
        await new Promise((resolve) => setTimeout(resolve, 20))
        running--
        return 'commit' as const
      },
    })
    await Promise.all(Array.from({ length: 12 }, (_, i) => payments.prepare([messageTo(work, i)])))
    await taken(work, 12)
    expect(most).to.equal(2)
  })

  it('sends once what two instances are asked for at the same time, or with the same ids', async () => {
    const name = senderName()
    const decisions = new MemoryDecisionStore()
    const one = await bench({ name, decisions, check: () => 'commit' })
    await bench({ name, decisions, check: () => 'commit' })
    const ids = new Set<string>()
    for (let i = 0; i < 20; i++) ids.add((await one.payments.prepare([messageTo(one.work, i)])).transactionId)
    const messages = await taken(one.work, 20)
    expect(new Set(messages.map((m) => m.properties.headers?.[HEADER.transactionId]))).to.deep.equal(ids)
    await nothingWaits(name)
  })

  it('lets no message have a priority in a delay, where it would hold up the delays and retries of all', async () => {
    const { work } = await committedAsForged({ priority: 9 })
    const [message] = await taken(work)
    expect(message!.properties.priority).to.equal(undefined)
    expect(message!.properties.headers).to.include({ [HEADER.priority]: 9 })
  })

  it('makes no delay longer than it was asked to be, although the clock that prepared was ahead', async () => {
    const began = Date.now()
    const { work } = await committedAsForged({ aheadMs: 3_600_000 })
    await taken(work)
    expect(Date.now() - began).to.be.at.least(300)
  })

  it('parks what is no half message, and takes no harm', async () => {
    const { payments, work, name } = await bench()
    for (const nonsense of [
      '',
      '{}',
      Buffer.from([0, 0, 0, 9, 1]),
      Buffer.concat([Buffer.from([0, 0, 0, 2]), Buffer.from('{}')]),
    ])
      await sendRaw(`${name}.half.check`, nonsense)
    await nothingWaits(name, 4)
    await payments.run([messageTo(work)], () => {})
    await taken(work)
  })

  it('goes on when its channel is lost, and tells so meanwhile', async () => {
    let answer: CheckAnswer = 'unknown'
    const { payments, work, name } = await bench({ check: () => answer, checks: 1_000 })
    await payments.prepare([messageTo(work)])
    await event('transaction.checked', (data) => data.name === name)
    const channel = await (await raw()).createChannel()
    const recovering = event('consumer.state', ({ queue, to }) => queue === `${name}.half.check` && to === 'recovering')
    await channel.deleteQueue(`${name}.half.check`)
    await recovering
    await event('consumer.state', ({ queue, to }) => queue === `${name}.half.check` && to === 'consuming')
    answer = 'commit'
    await payments.prepare([messageTo(work)])
    await taken(work)
  })
})

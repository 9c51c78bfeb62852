import { expect } from 'chai'
import { Pace, pauseAfter } from '../../lib/outbox/relay-pace.ts'

/** How long after a look that ends now the next one is due, ms. */
function restOf(pace: Pace, found: 'nothing' | 'some' | 'much', tookMs = 0): number {
  pace.looking()
  pace.looked(tookMs, found)
  return pace.dueAt - performance.now()
}

describe('the pace of a relay', () => {
  const { now } = performance
  beforeEach(() => {
    performance.now = () => 1_000
  })
  afterEach(() => {
    performance.now = now
  })

  it('looks ever later while there is nothing, up to pollMs, and soon again once there was something', () => {
    const pace = new Pace(50)
    const rests = Array.from({ length: 7 }, () => restOf(pace, 'nothing'))
    expect(rests).deep.equal([4, 8, 16, 32, 50, 50, 50])
    expect(restOf(pace, 'some')).equal(2)
    expect(restOf(pace, 'much')).equal(0)
  })

  it('begins the quick sequence anew with a hint, which comes before its commit', () => {
    const pace = new Pace(10_000)
    for (let n = 0; n < 12; n++) restOf(pace, 'nothing')
    pace.hint('added')
    expect(pace.dueAt - performance.now()).equal(2)
    expect([restOf(pace, 'nothing'), restOf(pace, 'nothing'), restOf(pace, 'nothing')]).deep.equal([4, 8, 16])
  })

  it('looks at once when something was committed, also while it looks', () => {
    const pace = new Pace(10_000)
    for (let n = 0; n < 12; n++) restOf(pace, 'nothing')
    pace.looking()
    pace.hint('committed')
    pace.looked(1_000, 'nothing')
    expect(pace.dueAt - performance.now()).equal(2)
  })

  it('rests as long as a look took where the database is slow', () => {
    expect(restOf(new Pace(500), 'some', 80)).equal(80)
    expect(restOf(new Pace(50), 'some', 80)).equal(50)
  })

  it('ends a rest, or the next one, when woken or hinted', async () => {
    const pace = new Pace(60_000)
    for (let n = 0; n < 12; n++) restOf(pace, 'nothing')
    pace.wake()
    await pace.until(performance.now() + 60_000)
    const rest = pace.until(pace.dueAt)
    pace.hint('added')
    await rest
    const woken = pace.until(Number.POSITIVE_INFINITY)
    pace.wake()
    await woken
  })

  it('leaves a failing database alone for ever longer, up to 5 s', () => {
    expect(pauseAfter(1)).within(50, 100)
    expect(pauseAfter(3)).within(200, 400)
    expect(pauseAfter(1_000)).within(2_500, 5_000)
  })
})

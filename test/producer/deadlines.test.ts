// One timer for many deadlines: when it goes off, and what is told then.

import { expect } from 'chai'
import { Deadlines, type Due } from '../../lib/producer/deadlines.ts'
import { VirtualTime } from '../consumer/virtual-time.ts'

const never = () => false

describe('deadlines of publishes', () => {
  const time = new VirtualTime(1)
  let open: Due[]
  let told: string[]
  let meanwhile: () => void
  let deadlines: Deadlines<Due>

  beforeEach(() => {
    time.install()
    open = []
    told = []
    meanwhile = () => {}
    deadlines = new Deadlines(
      () => open,
      (late) => {
        open = open.filter((one) => !late.includes(one))
        told.push(`${time.now}: ${late.map(({ deadlineAt }) => deadlineAt).join(' ')}`)
        meanwhile()
      },
    )
  })

  afterEach(() => {
    deadlines.stop()
    time.uninstall()
  })

  function add(deadlineAt: number): void {
    const due = { deadlineAt }
    open.push(due)
    deadlines.add(due)
  }

  it('are told when they pass, the earliest first, whatever came first', async () => {
    const from = time.now
    for (const ms of [300, 100, 200, 100]) add(from + ms)
    await time.pass(never, from + 1_000)
    expect(told).to.deep.equal([
      `${from + 100}: ${from + 100} ${from + 100}`,
      `${from + 200}: ${from + 200}`,
      `${from + 300}: ${from + 300}`,
    ])
  })

  it('of what has ended are not told', async () => {
    const from = time.now
    add(from + 100)
    open = []
    add(from + 200)
    await time.pass(never, from + 1_000)
    expect(told).to.deep.equal([`${from + 100}: `, `${from + 200}: ${from + 200}`])
  })

  it('are told in the end, where they are further away than a timer of Node can be set', async () => {
    const from = time.now
    const at = from + 3_000_000_000
    add(at)
    await time.pass(never, at)
    expect(told).to.deep.equal([`${from + 2_147_483_647}: `, `${at}: ${at}`])
  })

  it('hold for what is published by those who are just told', async () => {
    const from = time.now
    meanwhile = () => told.length === 1 && add(from + 150)
    add(from + 100)
    add(from + 900)
    await time.pass(never, from + 150)
    expect(told).to.deep.equal([`${from + 100}: ${from + 100}`, `${from + 150}: ${from + 150}`])
  })

  it('are told no more once it was stopped', async () => {
    const from = time.now
    add(from + 100)
    deadlines.stop()
    await time.pass(never, from + 1_000)
    expect(told).to.deep.equal([])
  })
})

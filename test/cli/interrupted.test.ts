// What the command does when it is told to end while it looks, and what a narrow terminal shows.

import type { ChildProcess } from 'node:child_process'
import { expect } from 'chai'
import { widthOf } from '../../bin/text.ts'
import { ResourceBusy } from '../../lib/index.ts'
import { Bench } from '../dead-letter/support.ts'
import { eventually } from '../support/eventually.ts'
import { uniqueQueue } from '../support/unique.ts'
import { surehop } from './command.ts'

describe('the command: ended while it looks', function () {
  this.timeout(180_000)
  let bench: Bench
  beforeEach(async () => {
    bench = await Bench.open('cli-ended')
  })
  afterEach(() => bench.close())

  /** Letters of which the broker gives none, since another consumer is the single active one. */
  async function givingNone(): Promise<string> {
    const queue = uniqueQueue('cli-single-active')
    const args = { 'x-queue-type': 'quorum', 'x-single-active-consumer': true }
    await bench.channel.assertQueue(`${queue}.dead`, { durable: true, arguments: args })
    await bench.channel.prefetch(1)
    await bench.channel.consume(`${queue}.dead`, () => {})
    for (let i = 0; i < 3; i++) bench.put(`${queue}.dead`, { i })
    await bench.confirmed()
    await bench.holds(2, `${queue}.dead`)
    return queue
  }

  /** As soon as somebody looks. */
  async function looked(queue: string): Promise<void> {
    const busy = () =>
      bench.surehop.queueStatus(`${queue}.dead.inspector`).then(
        () => false,
        (error: unknown) => error instanceof ResourceBusy,
      )
    await eventually(busy, { what: 'a look', withinMs: 30_000 })
  }

  for (const [signal, args] of [
    ['SIGINT', ['list']],
    ['SIGTERM', ['groups', '--where', 'type=nothing']],
    ['SIGHUP', ['show', 'm-0']],
    ['SIGINT', ['export']],
    ['SIGHUP', ['replay', '--yes']],
    ['SIGTERM', ['discard', '--dry-run']],
  ] as const)
    it(`${args[0]} ends at the first ${signal} with 130, and says that it saw not all`, async () => {
      const queue = await givingNone()
      const onStart = (child: ChildProcess) => void looked(queue).then(() => child.kill(signal))
      const [verb, ...rest] = args
      const { code, stdout, stderr } = await surehop(['dead', verb, queue, ...rest], { onStart })
      expect({ code, stdout }, stderr).to.deep.equal({ code: 130, stdout: '' })
      expect(stderr).to.contain('Interrupted: finishing')
      expect(stderr).not.to.contain('No ').and.not.to.contain('None of')
    })

  it('shows tables no wider than a terminal of 40 columns, the id whole', async () => {
    await bench.bury(2, (i) => ({ id: `01a1fe37-1951-7272-960b-4c5de9d20e1${i}`, message: 'a long story '.repeat(20) }))
    for (const [verb, shown] of [
      ['list', '01a1fe37-1951-7272-960b-4c5de9d20e11'],
      ['groups', 'TimeoutE'],
    ] as const)
      for (const COLUMNS of ['40', '60']) {
        const { stdout } = await surehop(['dead', verb, bench.queue], { env: { COLUMNS } })
        expect(Math.max(...stdout.split('\n').map(widthOf)), stdout).to.be.at.most(Number(COLUMNS))
        expect(stdout).to.contain(shown)
      }
  })
})

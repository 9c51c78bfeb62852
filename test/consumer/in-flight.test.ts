// What runs, what waits, and in which order: by example, and over random work.

import { expect } from 'chai'
import fc from 'fast-check'
import { InFlight, type Slot } from '../../lib/consumer/in-flight.ts'
import { latch } from '../support/eventually.ts'

/** A job that starts and ends on command, and notes both. */
function manual(log: string[], key: string, name: string) {
  const end = latch()
  const job = {
    key,
    run: async () => {
      log.push(`+${name}`)
      await end.promise
      log.push(`-${name}`)
    },
    drop: () => void log.push(`x${name}`),
  }
  return { job, end: () => end.resolve() }
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve))

describe('in-flight: what runs now', () => {
  it('runs no more than concurrency jobs, jobs of one key in their order, other keys in parallel', async () => {
    const log: string[] = []
    const flight = new InFlight(2)
    const jobs = [manual(log, 'a', 'a1'), manual(log, 'a', 'a2'), manual(log, 'b', 'b1'), manual(log, 'c', 'c1')]
    for (const { job } of jobs) flight.add(job)
    expect(log).to.deep.equal(['+a1', '+b1'])
    jobs[0]!.end()
    await settled()
    expect(log).to.deep.equal(['+a1', '+b1', '-a1', '+c1'])
    for (const { end } of jobs) end()
    await flight.drained()
    await settled()
    expect(log).to.include.members(['+a2', '-a2'])
    expect(flight.size).to.equal(0)
  })

  it('starts nothing after halt, and drops what waits, in order and once', async () => {
    const log: string[] = []
    const flight = new InFlight(1)
    const jobs = [manual(log, 'a', 'a1'), manual(log, 'a', 'a2'), manual(log, 'a', 'a3'), manual(log, 'b', 'b1')]
    for (const { job } of jobs) flight.add(job)
    flight.halt()
    flight.dropWaiting()
    flight.dropWaiting()
    for (const { end } of jobs) end()
    await flight.drained()
    expect(log).to.deep.equal(['+a1', 'xb1', 'xa2', 'xa3', '-a1'])
  })

  // A closing consumer waits for the answer to its cancel in between.
  it('starts nothing after halt, before what waits is dropped', async () => {
    const log: string[] = []
    const flight = new InFlight(1)
    const [running, waiting] = [manual(log, 'a', 'a1'), manual(log, 'b', 'b1')]
    flight.add(running.job)
    flight.add(waiting.job)
    flight.halt()
    running.end()
    await settled()
    expect(log).to.deep.equal(['+a1', '-a1'])
    flight.dropWaiting()
    expect(log).to.deep.equal(['+a1', '-a1', 'xb1'])
  })

  it('goes on with new jobs after it dropped those of a lost channel', async () => {
    const log: string[] = []
    const flight = new InFlight(1)
    const [old, lost, again] = [manual(log, 'a', 'old'), manual(log, 'a', 'lost'), manual(log, 'a', 'again')]
    flight.add(old.job)
    flight.add(lost.job)
    flight.dropWaiting()
    flight.add(again.job)
    old.end()
    again.end()
    await settled()
    await flight.drained()
    expect(log).to.deep.equal(['+old', 'xlost', '-old', '+again', '-again'])
  })

  it('survives a job that rejects', async () => {
    const flight = new InFlight(1)
    flight.add({ key: 'a', run: () => Promise.reject(new Error('never mind')) })
    const ran = latch()
    flight.add({ key: 'a', run: async () => ran.resolve() })
    await ran.promise
  })

  it('lends the slot of a resting job to other keys, keeps its key, and lets it go on before new jobs', async () => {
    const log: string[] = []
    const flight = new InFlight(1)
    const rested = latch()
    flight.add({
      key: 'a',
      run: async (slot: Slot) => {
        log.push('a rests')
        await slot.rest(() => rested.promise)
        log.push('a goes on')
      },
    })
    const behind = manual(log, 'a', 'a2')
    const other = manual(log, 'b', 'b')
    const next = manual(log, 'c', 'c')
    for (const { job } of [behind, other, next]) flight.add(job)
    await settled()
    expect(log).to.deep.equal(['a rests', '+b'])
    rested.resolve()
    await settled()
    expect(log).to.deep.equal(['a rests', '+b'], 'no slot is free')
    other.end()
    await settled()
    expect(log).to.deep.equal(['a rests', '+b', '-b', 'a goes on', '+c'])
    next.end()
    behind.end()
    await settled()
    await flight.drained()
    expect(log.slice(-2)).to.deep.equal(['+a2', '-a2'])
  })

  it('gives the slot of a leaving job to other keys at once, keeps its key until it has ended, and is not drained before', async () => {
    const log: string[] = []
    const flight = new InFlight(1)
    const recorded = latch()
    flight.add({
      key: 'a',
      run: async (slot) => {
        log.push('a leaves')
        slot.leave()
        slot.leave()
        await recorded.promise
        log.push('a ended')
      },
    })
    const jobs = [manual(log, 'a', 'a2'), manual(log, 'b', 'b'), manual(log, 'c', 'c')]
    for (const { job } of jobs) flight.add(job)
    await settled()
    expect(log).to.deep.equal(['a leaves', '+b'])
    expect([flight.running, flight.size]).to.deep.equal([1, 4])
    for (const { end } of jobs) end()
    await settled()
    expect(log).to.deep.equal(['a leaves', '+b', '-b', '+c', '-c'])
    const drained = flight.drained().then(() => log.push('drained'))
    await settled()
    recorded.resolve()
    await drained
    expect(log.slice(5)).to.deep.equal(['a ended', '+a2', '-a2', 'drained'])
  })

  it('lets as many jobs leave as may run, and no more before one of them has ended or rests', async () => {
    const flight = new InFlight(2)
    const started: number[] = []
    const ends = Array.from({ length: 9 }, (_, n) => {
      const end = latch()
      const run = async (slot: Slot) => {
        started.push(n)
        slot.leave()
        await end.promise
        if (n === 1) await slot.rest(() => new Promise(() => {}))
      }
      flight.add({ key: `${n}`, run })
      return end
    })
    const startedAfter = async (ended: number) => {
      ends[ended]!.resolve()
      await settled()
      return started.length
    }
    expect(started, 'two have left, two hold a slot').to.deep.equal([0, 1, 2, 3])
    expect(await startedAfter(0), 'one that left has ended').to.equal(4)
    expect(await startedAfter(2), 'the next leaves in its place').to.equal(6)
    expect(await startedAfter(1), 'one that left rests').to.equal(6)
    expect(await startedAfter(3), 'the next leaves in its place').to.equal(8)
    expect([flight.running, flight.size]).to.deep.equal([2, 6])
  })

  it('takes a slot again for a job that rests after it left', async () => {
    const flight = new InFlight(1)
    const running: number[] = []
    flight.add({
      key: 'a',
      run: async (slot) => {
        slot.leave()
        running.push(flight.running)
        await slot.rest(async () => {})
        running.push(flight.running)
      },
    })
    await flight.drained()
    expect([...running, flight.running, flight.size]).to.deep.equal([0, 1, 0, 0])
  })

  it('is not drained while a job rests, and lets it end after halt', async () => {
    const flight = new InFlight(1)
    const rested = latch()
    let ended = false
    flight.add({
      key: 'a',
      run: async (slot) => {
        await slot.rest(() => rested.promise)
        ended = true
      },
    })
    flight.halt()
    const drained = flight.drained()
    rested.resolve()
    await drained
    expect(ended).to.equal(true)
  })

  it('never exceeds its bound, never overlaps or reorders a key, ends every job once: any work, any order of ends', async () => {
    const key = fc.integer({ min: 0, max: 4 })
    const job = fc.record({ key, rests: fc.integer({ min: 0, max: 2 }), leaves: fc.boolean() })
    const jobs = fc.array(job, { maxLength: 30 })
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.integer({ min: 1, max: 4 }),
        jobs,
        fc.nat(40),
        async (s, bound, work, dropAt) => {
          const flight = new InFlight(bound)
          const started = new Map<number, number[]>()
          const ended = new Set<number>()
          const dropped = new Set<number>()
          const busy = new Set<number>()
          let [working, open, seen] = [0, 0, 0]
          const step = (label: string) => s.schedule(Promise.resolve(), label)
          const works = (change: number) => {
            working += change
            expect(working).to.be.at.most(bound)
            expect(flight.running).to.be.at.most(bound)
          }
          /** With or without a slot, but not at rest. */
          const opens = (change: number) => {
            open += change
            expect(open).to.be.at.most(2 * bound)
          }
          const add = (n: number, { key, rests, leaves }: (typeof work)[number]) => {
            const run = async (slot: Slot) => {
              expect(busy.has(key), `key ${key} overlaps`).to.equal(false)
              busy.add(key)
              started.set(key, [...(started.get(key) ?? []), n])
              opens(1)
              for (let i = 0; i <= rests; i++) {
                works(1)
                await step(`work ${n}`)
                works(-1)
                if (leaves) slot.leave()
                await step(`record ${n}`)
                if (i === rests) break
                opens(-1)
                await slot.rest(() => step(`rest ${n}`))
                opens(1)
              }
              opens(-1)
              busy.delete(key)
              ended.add(n)
            }
            flight.add({ key: String(key), run, drop: () => void dropped.add(n) })
          }
          const adding = (async () => {
            for (const [n, one] of work.entries()) {
              await step('add')
              add(n, one)
              if (++seen === dropAt) flight.dropWaiting()
            }
          })()
          await s.waitFor(adding)
          await s.waitFor(flight.drained())
          for (const order of started.values()) expect(order).to.deep.equal([...order].sort((a, b) => a - b))
          expect([...ended, ...dropped].sort((a, b) => a - b)).to.deep.equal(work.map((_, n) => n))
          expect(flight.size).to.equal(0)
        },
      ),
      { numRuns: 300 },
    )
  })
})

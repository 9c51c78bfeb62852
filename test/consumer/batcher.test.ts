// Requests made together travel together; none is lost, answered twice or mixed up, whatever fails and whenever it is given up.

import { expect } from 'chai'
import fc from 'fast-check'
import { Batcher, Turns } from '../../lib/batcher.ts'
import { latch } from '../support/eventually.ts'

/** Lets the scheduler go on until all is answered. */
async function driven<T>(s: fc.Scheduler, answers: readonly Promise<T>[]): Promise<T[]> {
  let all: T[] | undefined
  void Promise.all(answers).then((values) => {
    all = values
  })
  while (!all) {
    await new Promise((resolve) => setImmediate(resolve))
    if (s.count() > 0) await s.waitOne()
  }
  return all
}

describe('batcher', () => {
  it('sends what was asked together in one flight, and what came meanwhile in the next', async () => {
    const flights: number[][] = []
    const first = latch()
    const batcher = new Batcher<number, number>({
      maxBatch: 3,
      onFailure: () => {},
      send: async (requests) => {
        flights.push([...requests])
        if (flights.length === 1) await first.promise
        return requests.map((n) => n * 10)
      },
    })
    const early = [1, 2].map((n) => batcher.ask(n))
    await new Promise((resolve) => setImmediate(resolve))
    const late = [3, 4, 5, 6].map((n) => batcher.ask(n))
    first.resolve()
    expect(await Promise.all([...early, ...late])).to.deep.equal([10, 20, 30, 40, 50, 60])
    expect(flights).to.deep.equal([[1, 2], [3, 4, 5], [6]])
  })

  it('repeats a flight that failed, with the same requests, and tells each failure', async () => {
    const sent: number[][] = []
    const failures: string[] = []
    const batcher = new Batcher<number, number>({
      maxBatch: 10,
      onFailure: (error) => failures.push(error.message),
      send: async (requests) => {
        sent.push([...requests])
        if (sent.length === 1) throw new Error('no answer')
        return sent.length === 2 ? [] : [...requests]
      },
    })
    expect(await batcher.ask(1)).to.equal(1)
    expect(sent).to.deep.equal([[1], [1], [1]])
    expect(failures).to.deep.equal(['no answer', 'expected 1 answers from the store, got 0'])
  })

  it('answers each with its own answer, also where the one who sends empties or keeps the list it was given', async () => {
    const kept: (readonly number[])[] = []
    const batcher = new Batcher<number, number>({
      maxBatch: 2,
      onFailure: () => {},
      send: async (requests) => {
        const answers = (requests as number[]).splice(0).map((n) => n * 10)
        kept.push(requests)
        if (kept.length === 1) throw new Error('the reply was lost')
        for (const list of kept) (list as number[]).push(99)
        return answers
      },
    })
    const answers = Promise.all([1, 2, 3, 4, 5].map((n) => batcher.ask(n)))
    const late = new Promise((resolve) => setTimeout(resolve, 2_000, 'no answer'))
    expect(await Promise.race([answers, late])).to.deep.equal([10, 20, 30, 40, 50])
    expect(await batcher.ask(6)).to.equal(60)
  })

  it('waits until it may send, and sends nothing once it was told to give up', async () => {
    let sent = 0
    const batcher = new Batcher<number, number>({
      maxBatch: 10,
      onFailure: () => {},
      ready: (givenUp) => new Promise((resolve) => givenUp.addEventListener('abort', () => resolve())),
      send: async (requests) => {
        sent++
        return [...requests]
      },
    })
    const answer = batcher.ask(1)
    await new Promise((resolve) => setImmediate(resolve))
    batcher.giveUp()
    expect(await answer).to.equal(undefined)
    expect(await batcher.ask(2)).to.equal(undefined)
    expect(sent).to.equal(0)
  })

  it('lets those that share their turns fly one after the other, with all that the flight before has caused', async () => {
    const flights: string[] = []
    const turns = new Turns()
    const first = latch()
    const batcherOf = (name: string) =>
      new Batcher<number, number>({
        maxBatch: 10,
        turns,
        onFailure: () => {},
        send: async (requests) => {
          flights.push(`${name}${requests.join('')}`)
          if (flights.length === 1) await first.promise
          return [...requests]
        },
      })
    const [claims, ends] = [batcherOf('c'), batcherOf('e')]
    const caused = claims.ask(1).then((n) => ends.ask(n!))
    await new Promise((resolve) => setImmediate(resolve))
    const others = [ends.ask(2), claims.ask(3)]
    await new Promise((resolve) => setImmediate(resolve))
    expect(flights).to.deep.equal(['c1'])
    first.resolve()
    expect(await Promise.all([caused, ...others])).to.deep.equal([1, 2, 3])
    expect(flights).to.deep.equal(['c1', 'e21', 'c3'])
  })

  it('asks whether it may send when its turn has come: the flight it waited for may have changed that', async () => {
    const turns = new Turns()
    const [flight, outage] = [latch(), latch()]
    let down = false
    let sentWhileDown = false
    const slow = new Batcher<number, number>({
      maxBatch: 1,
      turns,
      onFailure: () => {},
      send: async (requests) => {
        await flight.promise
        down = true
        return [...requests]
      },
    })
    const careful = new Batcher<number, number>({
      maxBatch: 1,
      turns,
      onFailure: () => {},
      ready: () => (down ? outage.promise : undefined),
      send: async (requests) => {
        sentWhileDown = down
        return [...requests]
      },
    })
    const answers = [slow.ask(1), careful.ask(2)]
    flight.resolve()
    expect(await answers[0]).to.equal(1)
    down = true
    await new Promise((resolve) => setImmediate(resolve))
    down = false
    outage.resolve()
    expect(await answers[1]).to.equal(2)
    expect(sentWhileDown).to.equal(false)
  })

  // A claim that was granted must be known to have been granted.
  it('waits for a flight under way when it gives up, and answers what it brought', async () => {
    const arrive = latch()
    const batcher = new Batcher<number, number>({
      maxBatch: 1,
      onFailure: () => {},
      send: async (requests) => {
        await arrive.promise
        return [...requests]
      },
    })
    const [flying, waiting] = [batcher.ask(1), batcher.ask(2)]
    await new Promise((resolve) => setImmediate(resolve))
    batcher.giveUp()
    arrive.resolve()
    expect([await flying, await waiting]).to.deep.equal([1, undefined])
  })

  it('answers each request exactly once and its own answer, or undefined after giveUp: any interleaving', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 12 }),
        fc.nat(12),
        async (s, maxBatch, asks, givesUpAt) => {
          const done = new Set<number>()
          let attempts = 0
          const batcher = new Batcher<number, string>({
            maxBatch,
            onFailure: () => {},
            ready: () => undefined,
            send: async (requests) => {
              await s.schedule(Promise.resolve(), 'there')
              for (const n of requests) done.add(n)
              if (attempts++ % 4 === 3) throw new Error('the reply was lost')
              await s.schedule(Promise.resolve(), 'back')
              return requests.map((n) => `answer ${n}`)
            },
          })
          const answers: Promise<string | undefined>[] = []
          for (const n of asks.keys()) {
            if (n === givesUpAt) batcher.giveUp()
            answers.push(batcher.ask(n))
          }
          for (const [n, answer] of (await driven(s, answers)).entries()) {
            if (answer === undefined) expect(givesUpAt).to.be.below(asks.length)
            else expect([answer, done.has(n)]).to.deep.equal([`answer ${n}`, true])
          }
        },
      ),
      { numRuns: 100 },
    )
  })
})

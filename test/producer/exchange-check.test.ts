// When the broker is asked for an exchange, and what its answer does to the publishes held for it.

import { expect } from 'chai'
import type { Connection } from '../../lib/connection/connection.ts'
import { type Deferred, deferred } from '../../lib/deadline.ts'
import { PermissionRefused, ResourceMissing } from '../../lib/errors.ts'
import { Confirms } from '../../lib/producer/confirms.ts'
import { ExchangeCheck } from '../../lib/producer/exchange-check.ts'
import { Pending, type PublishEnd } from '../../lib/producer/pending.ts'
import { VirtualTime } from '../consumer/virtual-time.ts'

class Publish extends Pending {
  end: PublishEnd | undefined = undefined

  settle(end: PublishEnd): void {
    this.end = end
  }
}

/** The books, a check, and a broker that answers when told to. */
class World {
  readonly confirms = new Confirms({ windowMessages: 100, windowBytes: 100 })
  readonly questions: { readonly exchange: string; readonly answer: Deferred<void> }[] = []
  readonly check: ExchangeCheck

  constructor() {
    const checkExchange = (exchange: string) => {
      const answer = deferred()
      this.questions.push({ exchange, answer })
      return answer.promise
    }
    const connection = {
      withChannel: (run: (channel: object) => Promise<void>) => run({ checkExchange }),
      rpc: (_: string, operation: () => Promise<void>) => operation(),
    } as unknown as Connection
    this.check = new ExchangeCheck({ connection, confirms: this.confirms, asked: () => this.pump() })
  }

  publish(exchange = 'x'): Publish {
    const wire = { exchange, routingKey: '', content: Buffer.alloc(0), properties: { messageId: 'a', headers: {} } }
    const message = { ...wire, messageId: `${Math.random()}`, transactionId: 'a' }
    const publish = new Publish({ message, mandatory: true, startedAt: 0, deadlineAt: 1 })
    this.confirms.add(publish)
    this.pump()
    return publish
  }

  pump(): void {
    while (this.confirms.next()) {}
    this.check.askForHeld()
  }
}

describe('the check of exchanges', () => {
  const time = new VirtualTime(1)
  let world: World

  beforeEach(() => {
    time.install()
    world = new World()
  })

  afterEach(() => time.uninstall())

  const asked = () => world.questions.map(({ exchange }) => exchange)

  it('asks once for all that wait for one exchange, and for each exchange by itself', async () => {
    const publishes = ['x', 'y', 'x'].map((exchange) => world.publish(exchange))
    expect(asked()).to.deep.equal(['x', 'y'])
    world.questions[0]!.answer.resolve()
    await time.settle()
    expect(publishes.map(({ phase }) => phase)).to.deep.equal(['sent', 'held', 'sent'])
    expect(world.publish().phase).to.equal('sent')
    expect(asked()).to.deep.equal(['x', 'y'])
  })

  it('takes no answer to a question from before the channel was lost', async () => {
    const publish = world.publish()
    world.check.forget()
    world.questions[0]!.answer.resolve()
    await time.settle()
    expect([publish.phase, asked().length]).to.deep.equal(['held', 2])
    world.questions[1]!.answer.resolve()
    await time.settle()
    expect(publish.phase).to.equal('sent')
  })

  it('fails what is held for an exchange that is not there, and asks again for the next', async () => {
    const publish = world.publish()
    const error = new ResourceMissing('exchange "x"', 'exchange "x" does not exist')
    world.questions[0]!.answer.reject(error)
    await time.settle()
    expect(publish.end).to.deep.equal({ outcome: 'not-sent', why: error.message, retryable: false, cause: error })
    world.publish()
    expect(asked().length).to.equal(2)
  })

  it('asks again where there was no answer, after a pause', async () => {
    const publish = world.publish()
    const from = time.now
    world.questions[0]!.answer.reject(new Error('no answer'))
    expect(await time.pass(() => asked().length === 2, from + 1_000)).to.equal(true)
    expect([publish.phase, time.now - from]).to.deep.equal(['held', 250])
    expect(world.check.problem).to.contain('exchange "x"').and.contain('no answer')
    world.questions[1]!.answer.resolve()
    await time.settle()
    expect([publish.phase, world.check.problem]).to.deep.equal(['sent', undefined])
  })

  it('does not ask for an exchange whose refusal has just cost a channel, until five seconds later', async () => {
    const error = new PermissionRefused('access to exchange "x" refused')
    world.check.refused('x', error)
    const publish = world.publish()
    await time.settle()
    expect(publish.end).to.include({ outcome: 'not-sent', cause: error })
    expect(asked()).to.deep.equal([])
    time.now += 5_000
    world.publish()
    expect(asked()).to.deep.equal(['x'])
  })
})

import { EventEmitter } from 'node:events'
import { connect } from 'amqplib'
import { expect } from 'chai'
import { eventOf, eventually, within } from './eventually.ts'
import { deleteUnique, uniqueExchange, uniqueQueue } from './unique.ts'

describe('waiting', () => {
  const words = (promise: Promise<unknown>) => promise.then(String, (error: Error) => error.message)

  it('asks again until the check passes, and gives its answer', async () => {
    let asked = 0
    expect(await eventually(() => ++asked === 3 && 'third')).to.equal('third')
  })

  it('says what did not happen and what was last seen', async () => {
    const check = () => expect(7).to.equal(8)
    expect(await words(eventually(check, { withinMs: 40, what: 'eight' }))).to.equal(
      'eight did not happen within 40 ms; last seen: expected 7 to equal 8',
    )
    expect(await words(within(new Promise(() => {}), { withinMs: 5, what: 'the end' }))).to.equal(
      'the end did not happen within 5 ms',
    )
  })

  it('gives the first event that counts, and leaves no listener behind', async () => {
    const emitter = new EventEmitter()
    const second = eventOf<[number]>(emitter, 'n', { where: (n) => n > 1 })
    emitter.emit('n', 1)
    emitter.emit('n', 2)
    expect(await second).to.deep.equal([2])
    await words(eventOf(emitter, 'n', { withinMs: 5 }))
    expect(emitter.listenerCount('n')).to.equal(0)
  })
})

describe('unique names', () => {
  it('are deleted with the dead letters of the queue', async function () {
    const url = process.env['AMQP_URL']
    if (!url) return this.skip()
    const [queue, exchange] = [uniqueQueue('orders'), uniqueExchange('events')]
    const connection = await connect(url)
    const channel = await connection.createChannel()
    await channel.assertQueue(queue)
    await channel.assertQueue(`${queue}.dead`)
    await channel.assertExchange(exchange, 'topic')
    await deleteUnique()
    // Each could be declared with other arguments only because it was gone.
    await channel.assertQueue(queue, { autoDelete: true })
    await channel.assertQueue(`${queue}.dead`, { autoDelete: true })
    await channel.assertExchange(exchange, 'fanout', { autoDelete: true })
    for (const name of [queue, `${queue}.dead`]) await channel.deleteQueue(name)
    await channel.deleteExchange(exchange)
    await connection.close()
  })
})

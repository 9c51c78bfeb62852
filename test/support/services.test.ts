import { type ConfirmChannel, connect } from 'amqplib'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { type RabbitMq, type Server, startRabbitMq, startRedis, startServices } from './services.ts'

describe('private RabbitMQ', () => {
  let rabbitmq: RabbitMq

  before(async function () {
    this.timeout(90_000)
    rabbitmq = await startRabbitMq({ config: ['consumer_timeout = 61000'] })
  })

  after(() => rabbitmq?.close())

  it('keeps a confirmed message of a quorum queue over kill -9', async function () {
    this.timeout(60_000)
    await onChannel(rabbitmq.url, async (channel) => {
      await channel.assertQueue('kept', { durable: true, arguments: { 'x-queue-type': 'quorum' } })
      channel.sendToQueue('kept', Buffer.from('precious'), { persistent: true })
      await channel.waitForConfirms()
    })
    await rabbitmq.kill9()
    await rabbitmq.start()
    const body = await onChannel(rabbitmq.url, async (channel) => {
      const message = await channel.get('kept', { noAck: true })
      return message === false ? undefined : message.content.toString()
    })
    expect(body).to.equal('precious')
  })

  it('obeys rabbitmqctl and has the settings it was given', async () => {
    expect(await rabbitmq.ctl('eval', 'application:get_env(rabbit, consumer_timeout).')).to.contain('{ok,61000}')
    const failure = await rabbitmq.ctl('no_such_command').catch((error: Error) => error.message)
    expect(failure).to.contain('no_such_command')
  })
})

describe('private Redis', () => {
  const servers: Server[] = []
  const clients: Redis[] = []

  async function start(): Promise<{ server: Server; client: Redis }> {
    const server = await startRedis({ args: ['--appendfsync', 'always'] })
    const client = new Redis(server.url, { retryStrategy: () => 20 }).on('error', () => {})
    servers.push(server)
    clients.push(client)
    return { server, client }
  }

  afterEach(async () => {
    for (const client of clients.splice(0)) client.disconnect()
    await Promise.all(servers.splice(0).map((server) => server.close()))
  })

  it('does not collide with a second one', async () => {
    const [one, two] = await Promise.all([start(), start()])
    await one.client.set('whose', 'one')
    await two.client.set('whose', 'two')
    expect([await one.client.get('whose'), await two.client.get('whose')]).to.deep.equal(['one', 'two'])
    expect(await one.client.config('GET', 'maxmemory-policy')).to.deep.equal(['maxmemory-policy', 'noeviction'])
  })

  it('keeps its data and its port over kill -9, also when frozen', async () => {
    const { server, client } = await start()
    await client.set('kept', 'yes')
    await server.freeze()
    await server.kill9()
    await server.start()
    expect(await client.get('kept')).to.equal('yes')
  })

  it('has read its data when it is started: it refuses nothing then', async () => {
    const { server, client } = await start()
    await client.eval("for i = 1, 300000 do redis.call('SET', i, i) end", 0)
    await server.kill9()
    await server.start()
    const fresh = new Redis(server.url, { enableReadyCheck: false, lazyConnect: true })
    clients.push(fresh)
    await fresh.connect()
    expect(await fresh.get('300000')).to.equal('300000')
  })

  it('cannot be started again once closed', async () => {
    const { server } = await start()
    await server.close()
    const failure = await server.start().catch((error: Error) => error.message)
    expect(failure).to.match(/is closed/)
  })
})

describe('services of a run', () => {
  it('uses servers named by the environment as they are', async function () {
    const { AMQP_URL, REDIS_URL, DATABASE_URL } = process.env
    if (!AMQP_URL || !REDIS_URL || !DATABASE_URL) return this.skip()
    await using services = await startServices({ rabbitmq: true, redis: true, postgres: true })
    const { amqpUrl, redisUrl, databaseUrl } = services
    expect([amqpUrl, redisUrl, databaseUrl]).to.deep.equal([AMQP_URL, REDIS_URL, DATABASE_URL])
    expect(services.postgres.controllable).to.equal(false)
    expect(services.rabbitmq.controllable).to.equal(false)
    const failure = await services.redis.kill9().catch((error: Error) => error.message)
    expect(failure).to.match(/REDIS_URL was not started here/)
  })

  it('says so when a service is used that was not asked for', async () => {
    await using services = await startServices({})
    expect(() => services.amqpUrl).to.throw('startServices({ rabbitmq: true })')
  })
})

async function onChannel<T>(url: string, work: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
  const connection = await connect(url)
  try {
    return await work(await connection.createConfirmChannel())
  } finally {
    await connection.close()
  }
}

// A cluster that nobody else uses: its nodes are killed and frozen.

import { type ConfirmChannel, connect } from 'amqplib'
import { expect } from 'chai'
import { eventually } from '../../support/eventually.ts'
import { installed } from '../../support/rabbitmq.ts'
import type { ClusterNode, RabbitMqCluster } from '../world.ts'
import { startRabbitMqCluster } from './rabbitmq-cluster.ts'
import { releaseWanted } from './releases.ts'

const MESSAGES = 200

describe('private RabbitMQ cluster', function () {
  this.timeout(300_000)
  let cluster: RabbitMqCluster

  before(async function () {
    // Where RabbitMQ comes in containers only, there is no cluster.
    if ((await installed(releaseWanted())) === undefined) return this.skip()
    cluster = await startRabbitMqCluster()
    await onChannel(cluster.nodes[0]!, (channel) => fill(channel, 'kept'))
  })

  after(() => cluster?.close())

  it('has a replica of a quorum queue on each node', async () => {
    const { nodes } = cluster
    const queues = JSON.parse(await nodes[1]!.ctl('-q', 'list_queues', 'name', 'members', '--formatter', 'json'))
    expect(queues).to.have.length(1)
    const expected = nodes.map(({ name }) => `${name}@localhost`)
    expect(queues[0].members).to.have.members(expected)
  })

  it('keeps confirmed messages over kill -9 of the leader, and another node leads', async () => {
    const before = await cluster.leaderOf('kept')
    await before.kill9()
    const now = await eventually(() => cluster.leaderOf('kept'), { withinMs: 60_000 })
    expect(now).to.not.equal(before)
    expect(await onChannel(now, look)).to.equal(MESSAGES)
    await cluster.whole()
    expect(await onChannel(before, look), 'as seen from the node that was killed').to.equal(MESSAGES)
  })

  it('is whole again after it lost its majority, with all that was confirmed', async () => {
    const [first, second, third] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
    await Promise.all([first.kill9(), second.kill9()])
    const failure = await cluster.leaderOf('kept').catch((error: Error) => error.message)
    expect(failure).to.contain('kept has no leader')
    await cluster.whole()
    await cluster.leaderOf('kept')
    expect(await onChannel(third, look)).to.equal(MESSAGES)
  })

  it('is whole again after a node was frozen', async () => {
    await (await cluster.leaderOf('kept')).freeze()
    await cluster.whole()
    expect(await onChannel(await cluster.leaderOf('kept'), look)).to.equal(MESSAGES)
  })

  it('obeys rabbitmqctl, and can be driven into a memory alarm and out of it', async () => {
    const [node] = cluster.nodes as [ClusterNode]
    const alarms = () => node.ctl('eval', 'length(rabbit_alarm:get_alarms()).')
    await node.ctl('set_vm_memory_high_watermark', '0.00001')
    await eventually(async () => expect((await alarms()).trim()).to.equal('1'))
    await node.ctl('set_vm_memory_high_watermark', '0.4')
    await eventually(async () => expect((await alarms()).trim()).to.equal('0'))
  })
})

async function fill(channel: ConfirmChannel, queue: string): Promise<void> {
  await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
  for (let n = 0; n < MESSAGES; n++) channel.sendToQueue(queue, Buffer.from(`${n}`), { persistent: true })
  await channel.waitForConfirms()
}

/** How many different messages come out; they all stay, for the channel is closed without an ack. */
async function look(channel: ConfirmChannel): Promise<number> {
  const seen = new Set<string>()
  await channel.consume('kept', (message) => message && seen.add(message.content.toString()))
  await eventually(() => seen.size === MESSAGES, { withinMs: 30_000 })
  return seen.size
}

async function onChannel<T>(node: ClusterNode, work: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
  const connection = await connect(node.url)
  connection.on('error', () => {})
  try {
    return await work(await connection.createConfirmChannel())
  } finally {
    await connection.close().catch(() => {})
  }
}

/** What the doctor says, and that it says it of each thing it was asked about. */
import { expect } from 'chai'
import { connect } from '../../lib/index.ts'
import { startRabbitMq } from '../support/rabbitmq.ts'
import { unique } from '../support/unique.ts'
import { lines, surehop } from './command.ts'

describe('the command: doctor', function () {
  this.timeout(120_000)

  it('does not call a broker well that takes no messages, and examines every queue, also where one is refused', async () => {
    await using broker = await startRabbitMq()
    const queues = [unique('a'), unique('b')]
    const findings = async (url: string, ...args: string[]) => {
      const ran = await surehop(['doctor', '--json', ...args], { env: { AMQP_URL: url, REDIS_URL: '' } })
      return { ...ran, told: lines(ran.stdout) }
    }
    expect((await findings(broker.url)).code).to.equal(0)

    await surehop(['dead', 'import', queues[0]!, '-'], { env: { AMQP_URL: broker.url } })
    await broker.ctl('add_user', 'reader', 'pw')
    await broker.ctl('set_permissions', 'reader', '^$', '.*', '.*')
    const reader = broker.url.replace(/\/\/[^@]*@/, '//reader:pw@')
    const { code, told, stderr } = await findings(reader, ...queues)
    expect({ code, stderr }).to.deep.equal({ code: 1, stderr: '' })
    const dead = told.find(({ subject }) => subject === `${queues[0]}.dead`)!
    expect(dead['ok']).to.equal(false)
    expect(dead['text']).to.contain('permission refused')
    expect(told.map(({ subject }) => subject)).to.include.members(queues.map((queue) => `${queue}.archive`))

    await using library = await connect({ service: 'doctor', amqp: broker.url })
    await library.declare({ queues: [{ name: 'surehop.undeliverable.dead', arguments: { 'x-queue-type': 'quorum' } }] })
    await library.producer().send('surehop.undeliverable.dead', { body: 1 })
    const lying = (await findings(broker.url)).told.find(({ subject }) => subject === 'surehop.undeliverable.dead')
    expect(lying).to.include({ ok: false })
    expect(lying!['text']).to.contain('1 delayed message found no queue or exchange')

    await broker.ctl('set_disk_free_limit', '900GB')
    const short = await findings(broker.url)
    expect(short.code).to.equal(1)
    expect(short.told[0]).to.include({ ok: false, subject: 'broker' })
    expect(short.told[0]!['text']).to.contain('blocked by the broker').and.to.contain('disk')
  })
})

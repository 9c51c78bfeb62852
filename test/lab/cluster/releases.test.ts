import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { connect } from 'amqplib'
import { expect } from 'chai'
import { dataFolder } from '../../support/data-folder.ts'
import { startRabbitMq } from '../../support/rabbitmq.ts'
import { installationOf, isMade, type NewerRelease, ReleaseUnavailable, releaseWanted } from './releases.ts'

describe('newer RabbitMQ releases', () => {
  const before = { ...process.env }

  afterEach(() => {
    for (const name of ['SUREHOP_RABBITMQ', 'SUREHOP_RELEASES']) {
      if (before[name] === undefined) delete process.env[name]
      else process.env[name] = before[name]
    }
  })

  it('are named by SUREHOP_RABBITMQ; an unknown one is refused with the names of those there are', () => {
    process.env['SUREHOP_RABBITMQ'] = ''
    expect(releaseWanted()).to.equal('installed')
    process.env['SUREHOP_RABBITMQ'] = '4.0'
    expect(releaseWanted()).to.equal('4.0')
    process.env['SUREHOP_RABBITMQ'] = '3'
    expect(releaseWanted).to.throw('to be one of installed, 4.0, 4.3, or unset, got 3')
  })

  it('say in one sentence why they cannot be had', async () => {
    const folder = await dataFolder('releases')
    await mkdir(join(folder.path, '4.0'))
    process.env['SUREHOP_RELEASES'] = folder.path
    const failure = await installationOf('4.0').catch((error: unknown) => error)
    await folder.remove()
    expect(failure).to.be.instanceOf(ReleaseUnavailable)
    expect((failure as Error).message).to.match(/^RabbitMQ 4\.0 cannot be had here: [^.].*\.$/)
  })

  for (const release of ['4.0', '4.3'] as const satisfies readonly NewerRelease[]) {
    it(`start a private node of ${release} beside the others, where that has been made`, async function () {
      this.timeout(120_000)
      if (!isMade(release)) return this.skip()
      await using node = await startRabbitMq({ release })
      const connection = await connect(node.url)
      const { version } = connection.connection.serverProperties
      await connection.close()
      expect(version.startsWith(`${release}.`), `it says ${version}`).to.equal(true)
    })
  }
})

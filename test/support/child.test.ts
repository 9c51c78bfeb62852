import { expect } from 'chai'
import { Redis } from 'ioredis'
import { type Child, startChild } from './child.ts'
import { eventually } from './eventually.ts'

describe('child process', () => {
  let child: Child

  beforeEach(() => {
    child = startChild(new URL('./fixtures/parrot.ts', import.meta.url))
  })

  afterEach(() => child.close())

  it('talks with the test and keeps messages until they are asked for', async () => {
    child.send(1)
    child.send(2)
    expect(await child.next({ where: (message: { heard?: number }) => message.heard === 2 })).to.deep.equal({
      heard: 2,
    })
    expect(await child.next()).to.equal('ready')
    expect(await child.next()).to.deep.equal({ heard: 1 })
  })

  it('tells how it ended, also to whoever waits for a message', async () => {
    await child.next()
    child.send('throw')
    const failure = await child.next().catch((error: Error) => error.message)
    expect(failure).to.match(/ended \(\d+\) before it said that.*as you wish/s)
  })

  it('leaves no private server behind when it is killed', async () => {
    await child.next()
    child.send('redis')
    const { redis: url } = await child.next<{ redis: string }>()
    expect(await child.kill9()).to.deep.equal({ code: null, signal: 'SIGKILL' })
    await eventually(() => refuses(url), { what: 'the end of the private Redis' })
  })
})

async function refuses(url: string): Promise<boolean> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null }).on('error', () => {})
  const refused = await redis.connect().then(
    () => false,
    () => true,
  )
  redis.disconnect()
  return refused
}

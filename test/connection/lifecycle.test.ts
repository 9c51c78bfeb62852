import { inspect } from 'node:util'
import { expect } from 'chai'
import type { Logger } from '../../lib/observability/log.ts'
import { startChild } from '../support/child.ts'
import { within } from '../support/eventually.ts'
import { freePort } from '../support/ports.ts'
import { unique } from '../support/unique.ts'
import { administered, failure, wiring } from './wiring.ts'

const EXITS = new URL('./exits.ts', import.meta.url)
/** From "done" to the end of the process. */
const SOON_MS = 1_500

describe('a process', () => {
  const wired = wiring()

  async function endsAfter(url: string, how = ''): Promise<void> {
    const child = startChild(EXITS, { args: [url, how] })
    wired.later(() => child.close())
    await child.next({ where: (message) => message === 'done', withinMs: 15_000 })
    const end = await within(child.ended, { what: `the end of the process (${how})`, withinMs: SOON_MS })
    expect(end, child.output).deep.equal({ code: 0, signal: null })
  }

  for (const how of ['nothing', 'returned', 'delayed', 'pending'])
    it(`P18: ends by itself after close(): ${how}`, () => endsAfter(wired.broker.url, how))

  it('P18: ends by itself after a connect() that failed', async () => {
    await endsAfter(wired.broker.url.replace('guest:guest', 'guest:wrong'))
    await endsAfter(`amqp://127.0.0.1:${await freePort()}`)
    const proxy = await wired.proxy()
    proxy.stall()
    await endsAfter(proxy.url)
  })
})

describe('a process whose password is changed', () => {
  const wired = wiring(administered)

  it('writes no password and no body into any log line or error', async () => {
    const lines: unknown[] = []
    const write = (fields: object, text: string) => lines.push([fields, text])
    const logger: Logger = { debug: write, info: write, warn: write, error: write }
    const user = unique('user')
    const password = 'S3CRET@/x'
    await wired.broker.ctl('add_user', user, password)
    await wired.broker.ctl('set_permissions', user, '.*', '.*', '.*')
    wired.later(() => wired.broker.ctl('delete_user', user))
    const proxy = await wired.proxy()
    const url = proxy.url.replace('guest:guest', `${user}:${encodeURIComponent(password)}`)
    const surehop = await wired.surehop({ amqp: url, logger })
    const queue = await wired.queue()
    const producer = surehop.producer()
    const errors: unknown[] = [await failure(producer.send('nobody', { body: 'B0DY' }))]
    await producer.send(queue, { body: 'B0DY' })
    proxy.cut()
    await producer.send(queue, { body: 'B0DY' })
    errors.push(await failure(surehop.declare({ queues: [{ name: queue, arguments: {} }] })))
    await wired.broker.ctl('change_password', user, 'other')
    errors.push(await failure(wired.surehop({ amqp: url, logger })))
    await proxy.refuse()
    errors.push(await failure(wired.surehop({ amqp: url, logger, connectTimeoutMs: 100 })))
    await surehop.close()
    const said = inspect([lines, errors, surehop, producer, surehop.health()], { depth: 20, showHidden: true })
    expect(lines.length).above(8)
    for (const secret of ['S3CRET', 'B0DY', encodeURIComponent(password)]) expect(said).not.contain(secret)
  })
})

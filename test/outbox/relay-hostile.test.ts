// Rows that were written by hand, or in another language: what the broker closes the channel or the connection over.

import { expect } from 'chai'
import { fixed } from '../../lib/backoff.ts'
import { MessageInvalid } from '../../lib/errors.ts'
import { OutboxDesk } from '../../lib/outbox/desk.ts'
import { eventually } from '../support/eventually.ts'
import { Relaying } from './relaying.ts'

/** As JSON, which is how such a row says it. */
const HOSTILE: Readonly<Record<string, string>> = {
  replyTo: '{"headers":{},"replyTo":"amq.rabbitmq.reply-to"}',
  'header "n"': '{"headers":{"n":1e999}}',
  'header "deep"': '{"headers":{"deep":{"list":[1,{"n":-1e999}]}}}',
  'header "typed"': '{"headers":{"typed":{"!":"double","value":"none"}}}',
  'header "small"': '{"headers":{"small":{"!":"float","value":1e300}}}',
}

describe('a row that the broker closes the channel or the connection over', function () {
  this.timeout(120_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
  })
  afterEach(() => r.close())

  it('is parked with a reason that names the field, and the connection and its neighbours go on as if it were not there', async () => {
    const queue = await r.queue()
    const arrivals = await r.arrivals(queue)
    const names = Object.keys(HOSTILE)
    const ids = await r.add(...Array.from({ length: 40 }, (_, body) => ({ queue, key: `k${body}`, body })))
    for (const [i, name] of names.entries())
      await r.sql('UPDATE {schema}.outbox SET properties = $1 WHERE message_id = $2', [HOSTILE[name], ids[4 * i]])
    const lost = r.record('connection.state')
    const resent = r.record('publish.resent')
    await r.relay({ pollMs: 20, attempts: 2, backoff: fixed({ delayMs: 10 }) })
    await arrivals.count(ids.length - names.length)
    await eventually(async () => expect(await r.states()).deep.equal(names.map(() => 'parked')), { withinMs: 20_000 })
    const desk = new OutboxDesk({ pool: r.pool, schema: r.schema.name })
    const errors: string[] = []
    for await (const { lastError } of desk.list({ state: 'parked' })) errors.push(String(lastError))
    for (const [i, name] of names.entries()) expect(errors[i]).contain(`expected ${name} to be`)
    expect(lost.filter(({ from }) => from === 'open')).empty
    expect(resent).empty
  })

  it('is not written in the first place', async () => {
    const messages = [{ replyTo: 'amq.rabbitmq.reply-to' }, { headers: { n: { '!': 'double', value: 'none' } } }]
    for (const message of messages) {
      const error = await r.add({ queue: 'any', body: 1, ...message }).catch((e: unknown) => e)
      expect(error).instanceOf(MessageInvalid)
      expect((error as MessageInvalid).path).match(/replyTo$|headers\.n$/)
    }
  })
})

// Positions that somebody has connections take many at once, for speed: no order of commits any more.

import { expect } from 'chai'
import { OutboxDesk } from '../../lib/outbox/desk.ts'
import { Relaying } from './relaying.ts'

describe('positions that connections take many at once', function () {
  this.timeout(60_000)
  let r: Relaying
  beforeEach(async () => {
    r = await Relaying.open()
    await r.sql('ALTER SEQUENCE {schema}.outbox_position CACHE 20')
  })
  afterEach(() => r.close())

  it('are told by the relay when it starts, by its health and by the status: keys would go out of order in silence', async () => {
    const queue = await r.queue()
    const [one, other] = [await r.pool.connect(), await r.pool.connect()]
    for (const [body, client] of [one, other, one].entries()) {
      await client.query('BEGIN')
      await r.outbox.add({ queue, key: 'k', body }, client)
      await client.query('COMMIT')
    }
    for (const client of [one, other]) client.release()
    const bodies = await r.sql<{ body: Buffer }>('SELECT body FROM {schema}.outbox ORDER BY position')
    expect(bodies.map(({ body }) => String(body))).deep.equal(['0', '2', '1'])
    const told = r.event('outbox.warning')
    const surehop = await r.surehop()
    const relay = await r.relay({}, surehop)
    const sentence = `take 20 positions of "${r.schema.name}.outbox_position" at once`
    expect((await told).warning)
      .contain(sentence)
      .contain('CACHE 1')
    expect(surehop.health().reasons.join()).contain(sentence)
    const desk = new OutboxDesk({ pool: r.pool, schema: r.schema.name })
    expect((await desk.status())[0]!.problem).contain(sentence)
    await relay.close()
    await r.sql('ALTER SEQUENCE {schema}.outbox_position CACHE 1')
    expect((await desk.status())[0]!.problem).equal(undefined)
  })
})

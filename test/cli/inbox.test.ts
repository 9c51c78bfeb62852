// The command asks a Postgres inbox as it asks Redis, where it is told to.

import { expect } from 'chai'
import { migrate, PostgresIdempotencyStore } from '../../lib/index.ts'
import { Bench } from '../dead-letter/support.ts'
import { freshSchema, type Schema } from '../support/database.ts'
import { surehop } from './command.ts'

describe('the command: --inbox', function () {
  this.timeout(60_000)
  let bench: Bench
  let place: Schema
  before(async () => {
    bench = await Bench.open('inbox')
    place = await freshSchema()
    await migrate(place.pool, { schema: place.name })
  })
  after(async () => {
    await bench.close()
    await place.close()
  })

  it('follows a replay to its end, and skips what was completed', async () => {
    const store = new PostgresIdempotencyStore({ pool: place.pool, schema: place.name })
    const consumer = await bench.consume(
      store.transactional(() => {}),
      { idempotency: store },
    )
    const replay = (...args: string[]) =>
      surehop(['dead', 'replay', bench.queue, '--inbox', place.name, ...args], { env: { REDIS_URL: undefined } })
    await bench.bury(1)
    const first = await replay('--yes')
    expect(first.stderr).to.contain('Replayed 1 letter, 1 completed.')
    await bench.bury(1)
    const again = await replay('--dry-run')
    expect(again.stdout).to.match(/would skip {4}m-0 order\.placed: already completed at 20/)
    await consumer.close()
    await store.close()
  })

  it('is examined by the doctor', async () => {
    const { code, stdout } = await surehop(['doctor', '--inbox', place.name])
    expect(stdout).to.match(/^ok +inbox: reachable/m)
    expect(code).to.equal(0)
  })

  it('refuses two stores at once, since only one can be the consumer’s', async () => {
    const { code, stderr } = await surehop(['dead', 'list', bench.queue, '--inbox', place.name, '--redis', 'redis://h'])
    expect(stderr).to.contain("'--inbox <schema>' cannot be used with option '--redis <url>'")
    expect(code).to.equal(2)
  })

  it('says what to do where there is no such inbox', async () => {
    await bench.bury(1)
    const { code, stderr } = await surehop(['dead', 'replay', bench.queue, '--inbox', 'no_such_schema', '--dry-run'])
    expect(stderr).to.contain('surehop migrate')
    expect(code).to.equal(1)
  })
})

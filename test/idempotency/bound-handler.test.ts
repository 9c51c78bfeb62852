// A transactional handler and the consumer's idempotency store: told at start when they do not belong together.

import { expect } from 'chai'
import {
  type Handler,
  type IdempotencyStore,
  InvalidOption,
  MemoryIdempotencyStore,
  PostgresIdempotencyStore,
  type Surehop,
} from '../../lib/index.ts'
import { failure } from '../connection/wiring.ts'
import { closeAll, connected, counts, inbox as redisInbox, Tally } from '../consumer/setup.ts'
import { uniqueQueue } from '../support/unique.ts'
import { freshInbox, type Inbox } from './postgres-under-test.ts'

describe('consume() with a transactional handler', function () {
  this.timeout(60_000)
  let here: Inbox
  let elsewhere: Inbox
  let surehop: Surehop
  before(async () => {
    ;[here, elsewhere] = await Promise.all([freshInbox(), freshInbox()])
  })
  beforeEach(async () => {
    surehop = await connected()
  })
  afterEach(closeAll)
  after(() => Promise.all([here.close(), elsewhere.close()]))

  const storeOf = ({ pool, schema }: Inbox) => new PostgresIdempotencyStore({ pool, schema })
  const untouched = () => expect.fail('a message was taken')

  /** What a start with these two says; it has left nothing behind. */
  async function refusal(idempotency: IdempotencyStore | undefined, handler: Handler): Promise<string> {
    const queue = uniqueQueue()
    const options = idempotency ? { idempotency } : {}
    const error = await failure(surehop.consume(queue, options, handler))
    expect(error).instanceOf(InvalidOption)
    if (idempotency) expect(await counts(queue)).include({ consumers: 0 })
    return error.message
  }

  it('is refused at start without an idempotency store', async () => {
    expect(await refusal(undefined, storeOf(here).transactional(untouched))).contain('there is no idempotency store')
  })

  it('is refused at start beside a store that keeps its records elsewhere, and leaves no owner there', async () => {
    const handler = storeOf(here).transactional(untouched)
    for (const other of [new MemoryIdempotencyStore(), redisInbox(), storeOf(elsewhere)])
      expect(await refusal(other, handler))
        .contain(`schema "${here.schema}"`)
        .contain('"idempotency" is another store')
    expect((await elsewhere.pool.query(`SELECT owner FROM ${elsewhere.schema}.inbox_owners`)).rows).empty
  })

  it('works beside any store object with the same records: the same, another, or one in a wrapper', async () => {
    const inbox = storeOf(here)
    const wrapped: IdempotencyStore = {
      claim: (...given) => inbox.claim(...given),
      settle: (...given) => inbox.settle(...given),
      renew: (...given) => inbox.renew(...given),
      look: (...given) => inbox.look(...given),
      check: () => inbox.check(),
      close: () => inbox.close(),
    }
    const queue = uniqueQueue()
    const tally = new Tally<unknown>()
    const handler = inbox.transactional(({ body }) => void tally.add(body))
    for (const [n, idempotency] of [inbox, storeOf(here), wrapped].entries()) {
      const consumer = await surehop.consume(queue, { idempotency }, handler)
      await surehop.producer().send(queue, { body: n })
      await tally.reaches(n + 1)
      await consumer.close()
    }
    expect(tally.seen).deep.equal([0, 1, 2])
  })
})

// Processes with transactional handlers that are killed and frozen at the worst moments.

import { expect } from 'chai'
import { v7 } from 'uuid'
import { closeAll, connected, nothingLeft, toClose } from '../consumer/setup.ts'
import { type Child, startChild } from '../support/child.ts'
import { uniqueQueue } from '../support/unique.ts'
import { freshInbox, type Inbox } from './postgres-under-test.ts'
import type { WorkerSettings } from './transactional-worker.ts'

const WORKER = new URL('./transactional-worker.ts', import.meta.url)

describe('a process with a transactional handler', function () {
  this.timeout(90_000)
  let inbox: Inbox
  before(async () => {
    inbox = await freshInbox()
    await inbox.pool.query(`CREATE TABLE ${inbox.schema}.effects (id text NOT NULL, by text NOT NULL)`)
  })
  after(() => inbox.close())
  afterEach(closeAll)

  async function worker(queue: string, more: Partial<WorkerSettings> = {}): Promise<Child> {
    const { AMQP_URL: amqp = '' } = process.env
    const settings: WorkerSettings = {
      queue,
      amqp,
      database: inbox.url,
      schema: inbox.schema,
      leaseMs: 1_500,
      ...more,
    }
    const child = toClose(startChild(WORKER, { args: [JSON.stringify(settings)] }))
    await child.next({ where: (word) => word === 'ready', withinMs: 30_000 })
    return child
  }

  async function sent(queue: string): Promise<string> {
    const messageId = v7()
    await (await connected()).producer().send(queue, { messageId, body: {} })
    return messageId
  }

  async function rows(messageId: string) {
    const { schema, pool } = inbox
    const effects = await pool.query(`SELECT by FROM ${schema}.effects WHERE id = $1`, [messageId])
    const outputs = await pool.query(`SELECT message_id FROM ${schema}.outbox WHERE transaction_id = $1`, [messageId])
    return { effects: effects.rows.map(({ by }) => Number(by)), outputs: outputs.rowCount }
  }

  const has = (name: string) => ({ where: (word: unknown) => typeof word === 'object' && !!word && name in word })
  const long = { withinMs: 30_000 }

  it('that is killed before its commit leaves nothing, and the next one does it once', async () => {
    const queue = uniqueQueue('inbox-killed')
    const first = await worker(queue, { stops: 'before commit' })
    const messageId = await sent(queue)
    await first.next({ ...has('worked'), ...long })
    await first.kill9()
    const second = await worker(queue)
    await second.next({ ...has('completed'), ...long })
    expect(await rows(messageId)).to.deep.equal({ effects: [second.pid], outputs: 1 })
    await nothingLeft(queue)
  })

  it('that is killed after its commit, before its ack, has done it for good: the redelivery is dropped', async () => {
    const queue = uniqueQueue('inbox-killed')
    const first = await worker(queue, { stops: 'before ack' })
    const messageId = await sent(queue)
    await first.ended
    expect(await rows(messageId)).to.deep.equal({ effects: [first.pid], outputs: 1 })
    await worker(queue)
    await nothingLeft(queue)
    expect(await rows(messageId)).to.deep.equal({ effects: [first.pid], outputs: 1 })
  })

  it('that froze for longer than its lease commits nothing when it thaws', async () => {
    const queue = uniqueQueue('inbox-frozen')
    const first = await worker(queue, { stops: 'before commit' })
    const messageId = await sent(queue)
    await first.next({ ...has('worked'), ...long })
    process.kill(first.pid, 'SIGSTOP')
    // Its delivery is still its own: the broker has not noticed. A copy, as a publisher sends one that had no answer.
    const second = await worker(queue)
    await (await connected()).producer().send(queue, { messageId, body: {} })
    await second.next({ ...has('completed'), ...long })
    process.kill(first.pid, 'SIGCONT')
    first.send('go on')
    await first.next({ ...has('notDone'), ...long })
    await nothingLeft(queue)
    expect(await rows(messageId)).to.deep.equal({ effects: [second.pid], outputs: 1 })
  })
})

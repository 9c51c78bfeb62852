// What a broker does that cannot be brought about at will, played by a channel of the test.

import { EventEmitter } from 'node:events'
import { expect } from 'chai'
import type { Connection } from '../../lib/connection/connection.ts'
import { Reader } from '../../lib/dead-letter/reader.ts'

/** Counts all letters as handed over as soon as somebody consumes, and delivers them when it was asked so often. */
class LateChannel extends EventEmitter {
  readonly #letters: number
  readonly #asksBefore: number
  #deliver: (() => void) | undefined
  #asks = 0

  constructor(letters: number, asksBefore: number) {
    super()
    this.#letters = letters
    this.#asksBefore = asksBefore
  }

  checkQueue() {
    if (this.#deliver && ++this.#asks === this.#asksBefore) this.#deliver()
    return { messageCount: this.#deliver ? 0 : this.#letters }
  }

  consume(_: string, took: (raw: object) => void) {
    this.#deliver = () => {
      for (let deliveryTag = 1; deliveryTag <= this.#letters; deliveryTag++)
        took({ content: Buffer.from('{}'), fields: { deliveryTag }, properties: { headers: {} } })
    }
    return { consumerTag: 'late' }
  }

  prefetch() {}
  cancel() {}
  ack() {}
  assertQueue() {}
  deleteQueue() {}
  close() {}
}

describe('a reader of letters', function () {
  this.timeout(30_000)

  it('waits for letters that the broker counts as handed over and is still reading from disk', async () => {
    const channel = new LateChannel(3, 4)
    const connection = {
      options: { rpcTimeoutMs: 10_000 },
      ready: async () => {},
      openChannel: async () => channel,
      withChannel: (use: (lent: LateChannel) => unknown) => use(channel),
      rpc: async (_: string, ask: () => unknown) => ask(),
    } as unknown as Connection
    const reader = await Reader.open(connection, 'orders.dead')
    let given = 0
    while (await reader.next()) given++
    await reader.close()
    expect(given).to.equal(3)
  })
})

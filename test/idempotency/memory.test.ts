// What the store in memory holds: no more than it must, for as long as it must. What it decides is in `contract.test.ts`.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'chai'
import { sha256 } from '../../lib/consumer/decode.ts'
import { MemoryIdempotencyStore } from '../../lib/idempotency/memory.ts'

const SCOPE = { name: 'work', retentionMs: 3_600_000, leaseMs: 15_000, maxStarts: 3 }
const MESSAGES = 5_000

/** Bytes outside the heap, after a full collection. */
function buffers(): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  collect()
  return process.memoryUsage().arrayBuffers
}

describe('memory store', () => {
  it('keeps of a message its digest, and not the buffers that lay beside that', async () => {
    const store = new MemoryIdempotencyStore()
    const before = buffers()
    for (let n = 0; n < MESSAGES; n++) {
      const digest = sha256(Buffer.from(`${n}${'x'.repeat(3_000)}`))
      const [claimed] = await store.claim(SCOPE, 'me', [
        { id: `m${n}`, digest, generation: 0, attempt: 1, sequence: n },
      ])
      if (claimed?.status !== 'acquired') throw new Error(`expected it to be acquired, it is ${claimed?.status}`)
      const { fencingToken } = claimed
      await store.settle(SCOPE, 'me', [{ id: `m${n}`, fencingToken, digest, ending: { state: 'completed' } }])
    }
    expect(store.size).to.equal(MESSAGES)
    expect((buffers() - before) / MESSAGES, 'bytes a message').to.be.below(200)
  })
})

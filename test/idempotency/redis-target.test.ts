/** What the Redis store can be given. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { Redis } from 'ioredis'
import { InvalidOption } from '../../lib/errors.ts'
import { RedisIdempotencyStore } from '../../lib/idempotency/redis.ts'
import { unique } from '../support/unique.ts'

const REDIS_URL = process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379'

describe('the Redis store takes', () => {
  it('a URL, an object with one, or a client that stays its owner’s', async () => {
    const client = new Redis(REDIS_URL)
    for (const target of [REDIS_URL, { url: REDIS_URL }, client]) {
      const store = new RedisIdempotencyStore(target)
      expect(await store.check()).to.be.an('array')
      await store.close()
    }
    expect(await client.ping()).to.equal('PONG')
    client.disconnect()
  })

  it('a client that puts a prefix before its keys, and keeps to it', async () => {
    const keyPrefix = unique('prefix')
    const client = new Redis(REDIS_URL, { keyPrefix })
    const store = new RedisIdempotencyStore(client)
    const scope = { name: 'prefixed', retentionMs: 60_000, leaseMs: 1_000, maxStarts: 3 }
    const claim = { id: 'a', digest: undefined, generation: 0, attempt: 1, sequence: 1 }
    expect(await store.claim(scope, 'me', [claim])).to.have.nested.property('[0].status', 'acquired')
    expect(await client.keys(`${keyPrefix}surehop:{prefixed:*`)).to.have.length(2)
    await store.close()
    client.disconnect()
  })

  it('nothing else, and shows no password when it says so', () => {
    for (const target of [
      'http://:geheim@127.0.0.1',
      'redis://:geheim%@127.0.0.1',
      'redis://:p@geheim/x@127.0.0.1',
      'geheim',
      { url: 7 },
      {},
      undefined,
      null,
    ]) {
      expect(() => new RedisIdempotencyStore(target as never))
        .to.throw(InvalidOption, 'expected redis to be a URL')
        .with.property('message')
        .not.includes('geheim')
    }
  })

  it('no option that is misspelt or out of range', () => {
    expect(() => new RedisIdempotencyStore(REDIS_URL, { commandTimeout: 5 } as never)).to.throw(
      InvalidOption,
      'RedisIdempotencyStore: unknown option "commandTimeout", did you mean "commandTimeoutMs"?',
    )
    expect(() => new RedisIdempotencyStore(REDIS_URL, { connectTimeoutMs: 0 })).to.throw(InvalidOption, 'integer >= 1')
  })

  it('a process to its end, although nobody closed the store, whether Redis answers or not', async function () {
    this.timeout(30_000)
    const front = new URL('../../lib/index.ts', import.meta.url).href
    const script = `
      import { RedisIdempotencyStore } from '${front}'
      await new RedisIdempotencyStore('${REDIS_URL}').check()
      await new RedisIdempotencyStore('redis://127.0.0.1:1').check().catch((error) => console.log(error.code))
    `
    const args = ['--import', 'tsx', '--input-type=module', '--eval', script]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 20_000 })
    expect(stdout.trim()).to.equal('STORE_UNAVAILABLE')
  })
})

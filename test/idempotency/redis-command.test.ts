import assert from 'node:assert/strict'
import { Command } from 'ioredis'
import { scriptCommand } from '../../lib/idempotency/redis-command.ts'

const SHA = 'a'.repeat(40)

describe('a script call written at once', () => {
  for (const [what, keys, args] of [
    ['no key and no argument', [], []],
    ['one key', ['surehop:{orders:7}:o'], ['owner', Buffer.from([0, 0x80, 0xff, 0x0d, 0x0a])]],
    ['an empty argument', ['k'], [Buffer.alloc(0), '']],
    ['text beyond ASCII in an argument', ['k'], ['ö✓']],
    ['hundreds of keys', Array.from({ length: 300 }, (_, i) => 'k'.repeat(i)), [Buffer.alloc(70_000, 0xe2)]],
  ] as const) {
    it(`has the bytes that ioredis would write: ${what}`, () => {
      assert.deepEqual(scriptCommand(SHA, keys, args)?.toWritable({}), byIoredis(keys, args))
    })
  }

  it('is left to ioredis where a key is not plain ASCII', () => {
    for (const key of ['surehop:{bestellungen-ö:7}:o', '\u{1f407}', 'a\ud800'])
      assert.equal(scriptCommand(SHA, ['k', key], ['owner']), undefined)
  })
})

function byIoredis(keys: readonly string[], args: readonly (string | Buffer)[]): Buffer {
  const command = new Command('evalsha', [SHA, keys.length, ...keys, ...args], { replyEncoding: null })
  return Buffer.from(command.toWritable({}))
}

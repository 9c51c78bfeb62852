import { runInNewContext } from 'node:vm'
import { expect } from 'chai'
import { MessageInvalid } from '../lib/errors.ts'
import { type Schema, validate } from '../lib/schema.ts'

type Answer = ReturnType<Schema['~standard']['validate']>

const answering = (answer: unknown): Schema => ({
  '~standard': { version: 1, vendor: 'test', validate: () => answer as Answer },
})

/** A promise that is none of ours: of another realm, as a library may have its own. */
const later = (answer: unknown): unknown => runInNewContext('Promise.resolve(answer)', { answer })

describe('a schema', () => {
  it('is waited for whatever kind of promise it answers with, so that no body is taken for nothing', async () => {
    for (const answer of [{ value: 7 }, Promise.resolve({ value: 7 }), later({ value: 7 })])
      expect(await validate(answering(answer), 'body')).equal(7)
  })

  it('refuses with the path of the mistake, at once or later', async () => {
    const issues = [{ message: 'is odd', path: ['lines', 2, { key: 'sku' }] }, { message: 'more' }]
    for (const answer of [{ issues }, later({ issues })]) {
      const error = await validate(answering(answer), 'body').catch((thrown: unknown) => thrown)
      expect(error).instanceOf(MessageInvalid).include({ path: 'body.lines[2].sku' })
      expect((error as Error).message).equal('body.lines[2].sku: is odd (and 1 more)')
    }
  })
})

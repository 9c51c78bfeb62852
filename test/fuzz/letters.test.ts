import { expect } from 'chai'
import { wrongWith } from './letters.ts'
import type { Specimen } from './specimens.ts'

const verdict = (reason: unknown, message: unknown, fate: Specimen['fate'] = 'fails') =>
  wrongWith(JSON.stringify({ headers: { 'surehop-reason': reason, 'surehop-error-message': message } }), fate)

describe('the fuzzer takes a letter', () => {
  it('that says why, and in an invalid message what was wrong', () => {
    for (const [reason, message, fate] of [
      ['invalid message', 'expected header surehop-attempt to be an integer from 1 to 1000, got 0'],
      ['invalid message', 'the body is not JSON, content_type undefined: at position 1'],
      ['invalid message', 'body.sku: expected string'],
      ['refused by the handler', 'no hope: at all', 'is hopeless'],
      ['failed 2 times', 'whatever', 'fails'],
      ['failed 7 times', 'whatever', 'fails once'],
      ['same id, other body', 'message id x came before with another body', 'succeeds'],
      ['rejected (headers of more than 49152 bytes leave no room for its story)', undefined],
    ] as const)
      expect(verdict(reason, message, fate), reason).to.equal(undefined)
  })

  it('also without the text of the error, where the headers of its message leave no room for it', () => {
    const line = (big: number) =>
      JSON.stringify({ headers: { 'surehop-reason': 'invalid message', big: 'x'.repeat(big) } })
    expect(wrongWith(line(65_000), 'fails')).to.equal(undefined)
    expect(wrongWith(line(40_000), 'fails')).to.contain('its letter names no field')
  })

  it('for none without a reason, and not where another message should have ended so', () => {
    for (const [reason, message, fate, why] of [
      ['', 'whatever', 'fails', 'its letter gives no reason'],
      [undefined, 'whatever', 'fails', 'its letter gives no reason'],
      [{ toString: 1 }, 'whatever', 'fails', 'its letter gives no reason'],
      ['something is wrong', 'whatever', 'fails', 'its letter gives no reason'],
      ['invalid message', 'the reason is elsewhere', 'fails', 'its letter names no field'],
      ['invalid message', 'the message is bad', 'fails', 'its letter names no field'],
      ['invalid message', undefined, 'fails', 'its letter names no field'],
      ['rejected', undefined, 'fails', 'its letter does not say what could not be sent'],
      ['refused by the handler', 'no hope: at all', 'succeeds', 'it had hope'],
      ['refused by the handler', 'it lost its marker', 'is hopeless', 'it had hope'],
      ['failed 2 times', 'whatever', 'succeeds', 'its handler did not fail'],
      ['failed 2 times', 'whatever', 'is hopeless', 'its handler did not fail'],
    ] as const)
      expect(verdict(reason, message, fate), `${JSON.stringify(reason)}, ${fate}`).to.contain(why)
  })
})

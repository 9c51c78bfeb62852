// Text of anybody, made fit for a terminal.

import { expect } from 'chai'
import { safe } from '../../bin/text.ts'

describe('text that came over the wire', () => {
  it('does not paint over other lines: marks piled on one character are cut', () => {
    expect(safe(`a${'\u0301'.repeat(1_000)}b`)).to.equal(`a${'\u0301'.repeat(4)}·b`)
    expect(safe('e\u0301 नि')).to.equal('e\u0301 नि')
  })
})

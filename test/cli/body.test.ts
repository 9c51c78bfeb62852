// Bodies of anybody, for people and for programs.

import { expect } from 'chai'
import { bodyJson, bodyText, jsonText } from '../../bin/body.ts'

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)

describe('a body that came over the wire', () => {
  it('is shown as text when it is nested too deep to be written again', () => {
    for (const levels of [101, 5_000, 100_000]) {
      const body = Buffer.from(nested(levels))
      expect(bodyJson(body)).to.deep.equal({ body: undefined, bodyText: nested(levels) })
      expect(JSON.stringify(bodyJson(body))).to.include(nested(levels))
      // Spread over lines, each level would be moved in further: megabytes from kilobytes.
      expect(bodyText(body)).to.equal(nested(levels))
    }
    const objects = Buffer.from(`${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`)
    expect(bodyJson(objects)).to.have.property('bodyText')
  })

  it('is JSON where it is, whatever brackets its texts hold', () => {
    const value = { a: ['\\"[[[{{{', { b: '['.repeat(1_000) }], c: nested(100) }
    expect(bodyJson(Buffer.from(JSON.stringify(value)))).to.deep.equal({ body: value })
    expect(bodyJson(Buffer.from(nested(100))))
      .to.have.property('body')
      .that.is.an('array')
    expect(jsonText(JSON.stringify(value))).to.equal(JSON.stringify(value, null, 2))
    const long = 'x\\"'.repeat(4_000_000)
    expect(bodyJson(Buffer.from(`"${long}"`))).to.deep.equal({ body: JSON.parse(`"${long}"`) })
  })

  it('is base64 where it is no text', () => {
    expect(bodyJson(Buffer.from([0xff]))).to.deep.equal({ body: undefined, bodyBase64: '/w==' })
  })
})

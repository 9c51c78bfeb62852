// Text of anybody, made fit for a terminal.

import { expect } from 'chai'
import fc from 'fast-check'
import { table } from '../../bin/terminal.ts'
import { redacted, safe, widthOf } from '../../bin/text.ts'

describe('text that came over the wire', () => {
  it('does not paint over other lines: marks piled on one character are cut', () => {
    expect(safe(`a${'\u0301'.repeat(1_000)}b`)).to.equal(`a${'\u0301'.repeat(4)}·b`)
    expect(safe('e\u0301 नि')).to.equal('e\u0301 नि')
  })

  it('keeps a table within the terminal, whatever characters its cells are made of', () => {
    const hostile = ['क्षि', 'ᄀ각', 'z\u0489', '🇩🇪', '❤️', '\u{20000}', '👩‍👩', 'ᬆ\u1b35', '漢'].map((text) =>
      text.repeat(60),
    )
    const columns = [
      { head: 'WHAT', of: (text: string) => text, min: 8 },
      { head: 'MORE', of: (text: string) => text, min: 8, paint: (text: string) => `<${text}>` },
      { head: 'END', of: () => '1', right: true },
    ]
    for (const width of [40, 80, 120]) {
      const lines = table(hostile, columns, width, String).split('\n')
      expect(lines).to.have.length(hostile.length + 1)
      for (const line of lines) expect(widthOf(line.replace(/[<>]/g, '')), line).to.be.within(width - 3, width)
      for (const line of lines.slice(1)) expect(line).to.match(/ 1$/)
    }
  })

  it('is as wide as a terminal makes it, at most', () => {
    const columns = {
      a: 1,
      'e\u0301': 1,
      漢: 2,
      '\u{20000}': 2,
      '👩': 2,
      '🇩🇪': 2,
      '❤️': 2,
      क्षि: 3,
      'z\u0489': 1,
      '\u302a': 0,
    }
    for (const [text, width] of Object.entries(columns)) expect(widthOf(text), text).to.equal(width)
  })
})

describe('a password in an address', () => {
  const address = fc.tuple(
    fc.constantFrom('amqp', 'amqps', 'redis', 'rediss', 'postgres', 'postgresql'),
    fc.constantFrom('', 'guest', 'us%2Fer', 'a.b'),
    fc.string({ minLength: 1, unit: fc.constantFrom(...'/@#?%:&=,;\'"()[]{}<>\\|^~ $*+!', 'é', '%2F', '%', '%40') }),
    fc.constantFrom('127.0.0.1', 'rabbit.example.com:5672', '[::1]:1', 'host/vhost', 'host/?heartbeat=5'),
  )
  const sentences = [
    '$',
    'cannot reach $: connect ECONNREFUSED',
    'expected --amqp to be a URL, got "$"',
    '($)',
    'a $, $ b',
  ]

  it('is not printed, whatever characters it holds, and the host is', () => {
    const secret = (password: string) => `s3cr${password}3t`
    const property = fc.property(address, fc.constantFrom(...sentences), ([scheme, user, password, host], sentence) => {
      const text = sentence.replaceAll('$', () => `${scheme}://${user}:${secret(password)}@${host}`)
      const told = redacted(text)
      expect(told).not.to.match(/s3cr|3t/)
      expect(told).to.equal(sentence.replaceAll('$', () => `${scheme}://${user}:***@${host}`))
      expect(redacted(told)).to.equal(told)
    })
    fc.assert(property, { numRuns: 3_000 })
  })

  it('is not printed as a parameter either', () => {
    expect(redacted('postgres://host/db?user=u&password=s3cr/et&sslmode=x down')).to.equal(
      'postgres://host/db?user=u&password=***&sslmode=x down',
    )
  })

  it('leaves alone what holds none', () => {
    for (const text of ['amqp://host:5672/x is not there', 'http://a, b: c', 'x@y: z', 'amqp://guest@host:1/v'])
      expect(redacted(text)).to.equal(text)
  })
})

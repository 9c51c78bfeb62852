import { expect } from 'chai'
import fc from 'fast-check'
import { compileSelection, FILTER_FIELDS, InvalidOption, type Letter, parseFilter } from '../../lib/index.ts'

const LETTER = {
  id: 'm-1',
  transactionId: 't-1',
  type: 'order.placed',
  errorType: 'TimeoutError',
  errorMessage: 'No answer from host 7',
  reason: 'failed 8 times',
  fingerprint: 'abc',
  key: undefined,
  service: 'inventory',
  queue: 'orders',
  attempt: 8,
  generation: 2,
  deadAt: new Date('2025-06-30T12:00:00Z'),
} as unknown as Letter

const matches = (filter: string) => parseFilter(filter)(LETTER)

describe('dead letters: the where language', () => {
  const TRUE = [
    'error=TimeoutError and type=order.*',
    "error = 'TimeoutError'",
    'type=*',
    'type=*.placed',
    'type=o*r.p*d',
    'message=answer',
    'message="no ANSWER"',
    'message~"host \\\\d$"',
    'message!~xyz',
    'attempt>7 and attempt>=8 and attempt<9 and attempt<=8',
    'generation != 3',
    'key=""',
    'key!=x',
    'not type=payment.*',
    'error=Nope or (service=inventory and not queue=other)',
    'NOT error=Nope AND type=order.placed',
    'error=Nope and error=Nope or id=m-1',
  ]
  for (const filter of TRUE) it(`takes ${filter}`, () => expect(matches(filter)).to.equal(true))

  const FALSE = [
    'error=Timeout',
    'type=order.*.x',
    'type=order',
    'attempt>8',
    'not id=m-1',
    'message=*answer',
    'id=m-1 and id=m-2',
  ]
  for (const filter of FALSE) it(`does not take ${filter}`, () => expect(matches(filter)).to.equal(false))

  const WRONG: [string, number, string][] = [
    ['', 1, 'expected a field, got the end'],
    ['errr=1', 1, 'expected a field, got "errr"'],
    ['error TimeoutError', 7, 'expected an operator'],
    ['error=', 7, 'expected a value, got the end'],
    ['error=a and', 12, 'expected a field, got the end'],
    ['(error=a', 9, 'expected ")"'],
    ['error=a)', 8, 'expected "and", "or" or the end'],
    ['error="a', 7, 'a quote " without its end'],
    ['error>a', 6, 'which is not a number'],
    ['attempt>many', 9, 'expected a number for attempt'],
    ['message~"("', 9, 'expected a regular expression'],
    [`${'('.repeat(200)}id=1`, 101, 'at most 100 levels'],
  ]
  for (const [filter, column, text] of WRONG)
    it(`names column ${column} of ${filter.slice(0, 30)}`, () => {
      const error = thrown(() => parseFilter(filter))
      expect(error).to.be.instanceOf(InvalidOption)
      expect(error.message).to.contain(text).and.to.contain(`at column ${column}\n`)
      expect(error.message)
        .to.contain(`\n  ${' '.repeat(column - 1)}^\n`)
        .and.to.contain(FILTER_FIELDS.join(', '))
    })

  it('reads back whatever it is given, quoted', () => {
    const texts = fc.string({ unit: 'binary' }).filter((text) => !text.includes('*'))
    fc.assert(
      fc.property(texts, (text) => {
        const quoted = `"${text.replace(/["\\]/g, '\\$&')}"`
        const predicate = parseFilter(`type=${quoted} and not type!=${quoted}`)
        expect(predicate({ ...LETTER, type: text })).to.equal(true)
        expect(predicate({ ...LETTER, type: `${text}.` })).to.equal(false)
      }),
    )
  })

  it('never fails but with a column and the fields', () => {
    const pieces = fc.constantFrom(
      'error',
      'and',
      'or',
      'not',
      '(',
      ')',
      '=',
      '~',
      '>',
      '"',
      "'",
      'x*',
      ' ',
      '\\',
      '7',
      '\n',
    )
    const filters = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.array(pieces, { maxLength: 12 }).map((p) => p.join(' ')),
    )
    fc.assert(
      fc.property(filters, (filter) => {
        try {
          parseFilter(filter)(LETTER)
        } catch (error) {
          expect(error).to.be.instanceOf(InvalidOption)
          expect((error as Error).message).to.match(/at column \d+\n/)
        }
      }),
      { numRuns: 1_000 },
    )
  })

  it('means what logic means', () => {
    const terms = ['error=TimeoutError', 'type=nope', 'attempt>3', 'generation>9'] as const
    const value = (text: string) => matches(text)
    const expression: fc.Arbitrary<[string, boolean]> = fc.letrec<{ node: [string, boolean] }>((tie) => ({
      node: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(...terms).map((t): [string, boolean] => [t, value(t)]),
        tie('node').map(([t, v]): [string, boolean] => [`not (${t})`, !v]),
        fc.tuple(tie('node'), tie('node')).map(([[a, x], [b, y]]): [string, boolean] => [`(${a}) and (${b})`, x && y]),
        fc.tuple(tie('node'), tie('node')).map(([[a, x], [b, y]]): [string, boolean] => [`(${a}) or (${b})`, x || y]),
      ),
    })).node
    fc.assert(fc.property(expression, ([text, expected]) => matches(text) === expected))
  })

  it('globs as a slow but plain reading would', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '*'), maxLength: 8 })
    const words = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 8 })
    fc.assert(
      fc.property(letters, words, (pattern, word) => {
        const plain = new RegExp(`^${pattern.replaceAll('*', '.*')}$`).test(word)
        expect(parseFilter(`type="${pattern}"`)({ ...LETTER, type: word })).to.equal(plain)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('dead letters: a span of time', () => {
  const now = Date.parse('2025-06-30T13:00:00Z')
  const within = (selection: object) => compileSelection(selection, now).matches(LETTER)

  it('takes ago and dates, from and until', () => {
    expect(within({ since: '1h' })).to.equal(true)
    expect(within({ since: '59m' })).to.equal(false)
    expect(within({ since: '2025-06-30' })).to.equal(true)
    expect(within({ until: '2025-06-30T12:00:00Z' })).to.equal(false)
    expect(within({ since: new Date(now), until: '1s' })).to.equal(false)
  })

  it('says how to write one', () => {
    expect(thrown(() => within({ since: 'yesterday' })).message).to.contain(
      'expected since to be a time ago such as 90s',
    )
    expect(thrown(() => within({ limitt: 3 })).message).to.contain('did you mean "limit"?')
  })
})

function thrown(run: () => unknown): Error {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was thrown')
}

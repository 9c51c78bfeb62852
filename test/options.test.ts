import { expect } from 'chai'
import { InvalidOption } from '../lib/errors.ts'
import {
  checkOptions,
  either,
  flag,
  having,
  integer,
  listOf,
  maybeEmptyText,
  needed,
  number,
  oneOf,
  show,
  text,
} from '../lib/options.ts'

const RULES = { prefetch: integer(1), name: needed(text(8)), jitter: oneOf('full', 'none'), waitMs: number(0, 1_000) }

function complaint(options: unknown, rules = RULES): string {
  try {
    checkOptions('consume("orders")', options, rules)
  } catch (error) {
    expect(error).instanceOf(InvalidOption)
    return (error as Error).message
  }
  return ''
}

describe('options', () => {
  it('accepts what follows the rules, and leaves out what is not needed', () => {
    expect(complaint({ name: 'a' })).equal('')
    expect(complaint({ name: 'a', prefetch: 1, jitter: 'none', waitMs: 0.5 })).equal('')
    expect(complaint({ name: 'a', prefetch: undefined })).equal('')
  })

  it('says what was expected and what came', () => {
    expect(complaint({ name: 'a', prefetch: 0 })).equal(
      'consume("orders"): expected prefetch to be an integer >= 1, got 0',
    )
    expect(complaint({ name: 'a', waitMs: Number.NaN })).contain('a number from 0 to 1000, got NaN')
    expect(complaint({ name: 'a', jitter: 'half' })).contain('one of full, none, got "half"')
    expect(complaint({})).contain('expected name to be a non-empty string of at most 8 bytes, got nothing')
    expect(complaint({ name: 'ééééé' })).contain('at most 8 bytes')
    expect(complaint('x')).equal('consume("orders"): expected options such as { prefetch, name, jitter }, got "x"')
    expect(complaint(null)).contain('got null')
    expect(complaint([])).contain('got an array of 0')
  })

  it('guesses at typos, and lists what it knows when it cannot guess', () => {
    expect(complaint({ name: 'a', prefech: 1 })).contain('unknown option "prefech", did you mean "prefetch"?')
    expect(complaint({ name: 'a', PREFETCH: 1 })).contain('did you mean "prefetch"?')
    expect(complaint({ name: 'a', somethingElse: 1 })).contain('known: prefetch, name, jitter, waitMs')
    expect(complaint({ name: 'a', constructor: 1 })).contain('unknown option "constructor"')
  })

  it('knows lists, methods, alternatives', () => {
    expect(listOf(text())(['a', ''])).contain('each item a non-empty string')
    expect(listOf(text())('a')).equal('an array')
    expect(listOf(text())([])).equal(undefined)
    expect(listOf(text(), 1)([])).equal('an array of at least 1')
    expect(listOf(text(), 1)(['a'])).equal(undefined)
    expect(having('a logger', 'info')({ info: () => {} })).equal(undefined)
    expect(having('a logger', 'info')({ info: 1 })).equal('a logger')
    expect(having('a logger', 'info')(null)).equal('a logger')
    expect(either(flag, integer())('x')).equal('true or false, or an integer >= 0')
    expect(maybeEmptyText(3)('')).equal(undefined)
    expect(integer(1, 3)(4)).equal('an integer from 1 to 3')
    expect(integer(0)(2 ** 53)).contain('an integer')
  })

  it('says that it was given something else in place of options', () => {
    class Pool {
      readonly host = 'db'
    }
    const given = () => checkOptions('store', new Pool(), { pool: needed(flag), schema: flag })
    expect(given).throw(InvalidOption, 'store: expected options such as { pool, schema }, got an object of Pool')
  })

  it('shows any value on one short line, and no content of objects', () => {
    expect(show('x'.repeat(100)).length).below(70)
    expect(show({ password: 'secret' })).equal('an object of Object')
    expect(show(Object.create(null))).equal('an object of no class')
    expect(show({ constructor: { name: { toString: 1 } } })).equal('an object of Object')
    expect(show(() => {})).equal('a function')
    expect(show(Symbol('s'))).equal('Symbol(s)')
    expect(show(10n)).equal('10')
  })

  it('shows no password of an address that was given in the wrong place', () => {
    const secret = 's3:c@r/et'
    expect(show(`postgres://app:${secret}@db:5432/${'x'.repeat(100)}`)).match(
      /^"postgres:\/\/app:\*\*\*@db:5432\/x+…"$/,
    )
    expect(show(`amqp://app:${secret.repeat(10)}@rabbit`)).equal('"amqp://app:***@rabbit"')
    expect(show('postgres://db/orders?user=app&password=s3cret')).equal('"postgres://db/orders?user=app&password=***"')
    expect(show('https://example.org/a:b')).equal('"https://example.org/a:b"')
  })
})

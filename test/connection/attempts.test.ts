import { expect } from 'chai'
import { Attempts } from '../../lib/connection/attempts.ts'

const ONE = 'amqp://shop:s3cret@one:5672'
const TWO = 'amqp://shop:s3cret@two:5672'
const away = () => Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
const wrongPassword = () => new Error('Handshake terminated by server: 403 (ACCESS-REFUSED)')
const noVhost = () => new Error('Expected ConnectionOpenOk; got <ConnectionClose channel:0>')

function attempts(urls: readonly string[] = [ONE]): Attempts {
  return new Attempts({ urls, reconnectBaseMs: 100, reconnectCapMs: 1_000 })
}

describe('attempts to connect', () => {
  it('are made ever more seldom, with jitter, up to a ceiling, and soon again after an opening', () => {
    const made = attempts()
    for (const ceiling of [100, 200, 400, 800, 1_000, 1_000])
      expect(made.nextPauseMs()).to.be.within(ceiling / 2, ceiling)
    made.opened()
    expect(made.nextPauseMs()).to.be.within(50, 100)
  })

  it('go on while the broker is away', () => {
    const made = attempts()
    for (let i = 0; i < 100; i++) expect(made.failed(away(), ONE).final).to.equal(undefined)
  })

  it('end at once when one that was never open is refused for good', () => {
    expect(attempts().failed(wrongPassword(), ONE).final).to.include({ reason: 'credentials' })
    expect(attempts().failed(noVhost(), ONE).final).to.include({ reason: 'vhost' })
  })

  it('do not end before every URL was tried, and tell of the refusal rather than of the one that was away', () => {
    const made = attempts([ONE, TWO])
    const first = made.failed(wrongPassword(), ONE)
    expect(first.final).to.equal(undefined)
    const second = made.failed(away(), TWO)
    expect(second.error).to.include({ code: 'ECONNREFUSED' })
    expect(second.lastError).to.equal(first.error)
    expect(second.final).to.equal(first.error)
  })

  it('end at the tenth refusal when it was open before, and not over the virtual host', () => {
    const made = attempts()
    made.opened()
    for (let i = 1; i < 10; i++) expect(made.failed(wrongPassword(), ONE).final, `refusal ${i}`).to.equal(undefined)
    expect(made.failed(noVhost(), ONE).final).to.equal(undefined)
    expect(made.failed(wrongPassword(), ONE).final).to.include({ reason: 'credentials' })
  })

  it('count refusals anew after an opening', () => {
    const made = attempts()
    made.opened()
    for (let i = 1; i < 10; i++) made.failed(wrongPassword(), ONE)
    made.opened()
    expect(made.failed(wrongPassword(), ONE).final).to.equal(undefined)
    expect(made.failed(away(), ONE).lastError).to.include({ reason: 'credentials' })
  })
})

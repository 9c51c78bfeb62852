// A client lent for one transaction, whatever kind of object it is.

import { expect } from 'chai'
import { Closed } from '../../lib/errors.ts'
import { lentFor } from '../../lib/sql/lent-for.ts'

class Client {
  readonly #asked: string[] = []
  isBusy = false

  async query(sql: string): Promise<string[]> {
    this.#asked.push(sql)
    return this.#asked
  }

  asked(): string[] {
    return this.#asked
  }
}

describe('a client that is lent', () => {
  for (const [kind, client] of [
    ['with private fields', new Client()],
    ['that is frozen', Object.freeze(new Client())],
  ] as const)
    it(`does what it does, one ${kind}, until it is taken back`, async () => {
      const { lent, end } = lentFor(client)
      expect(lent).to.be.instanceOf(Client)
      expect([await lent.query('1'), lent.asked(), lent.isBusy]).to.deep.equal([['1'], ['1'], false])
      end()
      const error = await lent.query('2').catch((refused: unknown) => refused)
      expect(error).to.be.instanceOf(Closed)
      expect(client.asked()).to.deep.equal(['1'])
    })

  it('may be a plain object with nothing but functions, frozen', async () => {
    const { lent } = lentFor(Object.freeze({ query: async () => 'rows', release: () => 'released' }))
    expect([await lent.query(), lent.release()]).to.deep.equal(['rows', 'released'])
  })
})

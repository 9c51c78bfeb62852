// A run of the mutants is worth what its "caught" is worth: a test must have noticed the fault, not a service that broke meanwhile.

import { createServer } from 'node:net'
import { expect } from 'chai'
import { silentOf } from './services.ts'
import { confirmed, settled, type Verdict } from './trial.ts'

const { AMQP_URL, REDIS_URL, DATABASE_URL } = process.env
const services = { AMQP_URL, REDIS_URL, DATABASE_URL }

const passed: Verdict = { passed: ['it'], failed: [], trouble: undefined, seconds: 1 }
const failing = (why: string): Verdict => ({ ...passed, failed: [{ title: 'it', why }] })
const never = () => Promise.reject(new Error('asked without need'))

/** A port where nobody listens. */
async function closedPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

describe('a mutant in trouble', () => {
  const inTurn = (...verdicts: readonly Verdict[]) => {
    const left = [...verdicts]
    return async () => left.shift() ?? never()
  }
  const trouble: Verdict = { ...passed, trouble: 'its tests did not end in time' }

  it('is tried once more, and no verdict is', async () => {
    for (const verdict of [passed, failing('expected 1 to equal 2')]) {
      expect(await settled(inTurn(verdict))).to.equal(verdict)
      expect(await settled(inTurn(trouble, verdict))).to.deep.equal({ ...verdict, seconds: 2 })
    }
    expect(await settled(inTurn(trouble, trouble))).to.include({ trouble: trouble.trouble })
  })
})

describe('a mutant counts as caught', () => {
  it('when its test fails, and every service answers', async () => {
    expect(await silentOf(services)).to.equal(undefined)
    const seen = failing('expected 1 to equal 2')
    expect(await confirmed(seen, never, services)).to.equal(seen)
    expect(await confirmed(passed, never, services)).to.equal(passed)
  })

  for (const [name, url] of [
    ['AMQP_URL', 'amqp://127.0.0.1'],
    ['REDIS_URL', 'redis://127.0.0.1'],
    ['DATABASE_URL', 'postgres://127.0.0.1'],
  ] as const)
    it(`never when a service is gone, whatever the test said: ${name}`, async () => {
      const env = { ...services, [name]: `${url}:${await closedPort()}` }
      const { trouble } = await confirmed(failing('expected 1 to equal 2'), never, env)
      expect(trouble).to.match(new RegExp(`a service does not answer.*${name}: .*ECONNREFUSED`))
    })

  for (const why of [
    'Timeout of 30000ms exceeded. For async tests and hooks, ensure "done()" is called',
    'connect ECONNREFUSED 127.0.0.1:6379',
  ])
    it(`only if the same tests pass without it, where it may have been time or a connection: ${why.slice(0, 30)}`, async () => {
      const seen = failing(why)
      expect(await confirmed(seen, async () => passed, services)).to.deep.equal({ ...seen, seconds: 2 })
      const { trouble } = await confirmed(seen, async () => failing(why), services)
      expect(trouble).to.contain(`without the fault, too: it: ${why}`)
    })
})

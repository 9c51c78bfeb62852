import { expect } from 'chai'
import { environmentOf, SERVICES, secretsOf, wrong } from './addresses.ts'
import { offence, PASSWORD } from './screen.ts'

const own = {
  AMQP_URL: 'amqp://guest:guest@127.0.0.1:5672',
  REDIS_URL: 'redis://127.0.0.1:6379',
  DATABASE_URL: 'postgres://postgres:0123%23456789ab@127.0.0.1:5432/postgres',
}

/** What is wrong with a screen that shows this. */
const shown = (text: string) =>
  offence({ stdout: Buffer.from(`surehop: ${text}\n`), secrets: secretsOf(environmentOf(own)) })

describe('addresses that the command is given', () => {
  it('have a password at every service, also where it asks for none', () => {
    const env = environmentOf(own)
    for (const service of SERVICES) expect(new URL(env[service]!).password, service).not.to.equal('')
    expect(env['REDIS_URL']).to.equal(`redis://default:${PASSWORD}@127.0.0.1:6379`)
    const guarded = { ...own, REDIS_URL: 'redis://:of-its-own@127.0.0.1:6379' }
    expect(environmentOf(guarded)).to.equal(guarded)
  })

  for (const service of SERVICES) {
    it(`may not be shown whole: ${service}`, () => {
      const all = [environmentOf(own)[service]!, ...Object.values(wrong(service, own))]
      for (const address of all) {
        expect(shown(address), address).to.equal('it shows a password')
        expect(shown(address.replace(/:[^:/]+(\/x)?@/, ':***@')), address).to.equal(undefined)
      }
    })
  }

  it('may not have their password shown by itself either, decoded or not, unless it is a word', () => {
    for (const secret of [PASSWORD, '0123%23456789ab', '0123#456789ab'])
      expect(shown(`user="scott" password="${secret}"`), secret).to.equal('it shows a password')
    expect(shown('user_id guest')).to.equal(undefined)
  })
})

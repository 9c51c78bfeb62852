// kill -9 of the sender at every step; a second instance checks back for the dead one.

import { expect } from 'chai'
import { Redis } from 'ioredis'
import { RedisDecisionStore } from '../../lib/index.ts'
import { startChild } from '../support/child.ts'
import { eventually } from '../support/eventually.ts'
import { unique } from '../support/unique.ts'
import type { SenderSettings } from './fixtures/sender.ts'
import { amqpUrl, bench, closeAll, counts, nothingWaits, redisUrl, senderName, taken, toClose } from './setup.ts'

describe('a sender that is killed', () => {
  afterEach(closeAll)

  const ends: Record<SenderSettings['diesAt'], 'sent' | 'not sent'> = {
    prepared: 'not sent',
    worked: 'sent',
    decided: 'sent',
    published: 'sent',
    nowhere: 'sent',
  }

  for (const [diesAt, end] of Object.entries(ends))
    it(`leaves its message ${end} when it dies at: ${diesAt}`, async function () {
      this.timeout(60_000)
      const prefix = unique('kills')
      const name = senderName()
      const books = new Redis(redisUrl())
      toClose({ close: async () => books.disconnect() })
      const decisions = toClose(new RedisDecisionStore({ url: redisUrl() }, { prefix }))
      const check = async (id: string) => ((await books.get(`${prefix}:work:${id}`)) ? 'commit' : 'rollback')
      const second = await bench({ name, decisions, check, firstCheckMs: 1_000 })
      const settings = { name, work: second.work, prefix, amqp: amqpUrl(), redis: redisUrl(), diesAt }
      const child = startChild(new URL('./fixtures/sender.ts', import.meta.url), { args: [JSON.stringify(settings)] })
      const { prepared } = await child.next<{ prepared: string }>({ withinMs: 30_000 })
      expect((await child.ended).signal, child.output).to.equal(diesAt === 'nowhere' ? null : 'SIGKILL')
      await nothingWaits(name)
      if (end === 'not sent') expect((await counts(second.work)).messages).to.equal(0)
      else {
        await eventually(async () => expect((await counts(second.work)).messages).to.be.at.least(1))
        const messages = await taken(second.work, (await counts(second.work)).messages)
        expect(new Set(messages.map((m) => m.properties.messageId)).size, 'copies have one id').to.equal(1)
      }
      const [view] = await decisions.look({ name, retentionMs: 1_000 }, [prepared])
      expect(view!.decision).to.equal(end === 'sent' ? 'committed' : 'rolled-back')
    })
})

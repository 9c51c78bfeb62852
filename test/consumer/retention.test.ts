// How long messages must be remembered, whatever the store: checked before anything is consumed.

import { expect } from 'chai'
import type { ConsumeOptions } from '../../lib/consume.ts'
import { InvalidOption } from '../../lib/errors.ts'
import { uniqueQueue } from '../support/unique.ts'
import { closeAll, connected, inbox } from './setup.ts'

describe('consumer: retention', function () {
  this.timeout(60_000)
  afterEach(closeAll)

  async function complaint(options: ConsumeOptions): Promise<string> {
    const surehop = await connected()
    try {
      await surehop.consume(uniqueQueue(), { idempotency: inbox(), ...options }, () => {})
    } catch (error) {
      expect(error).to.be.instanceOf(InvalidOption)
      return (error as Error).message
    }
    return ''
  }

  const short = { retry: { maxAgeMs: 10_000 }, replayWindowMs: 20_000 }

  it('refuses to forget a message before its last retry and replay', async () => {
    expect(await complaint({ ...short, retentionMs: 29_999 }))
      .to.contain('29999')
      .and.to.contain('30000 in all')
    expect(await complaint({ retentionMs: 60_000 })).to.contain('retry span')
  })

  it('refuses to forget a message while it runs: a copy would be run beside it', async () => {
    const said = await complaint({ ...short, retentionMs: 60_000 })
    expect(said).to.contain('handlerTimeoutMs (300000) plus leaseMs (15000), 315000 in all')
    expect(await complaint({ ...short, retentionMs: 44_999, handlerTimeoutMs: 30_000 })).to.contain('45000 in all')
    expect(await complaint({ ...short, retentionMs: 45_000, handlerTimeoutMs: 30_000 })).to.equal('')
    expect(await complaint({ retentionMs: 15 * 86_400_000 })).to.equal('')
  })
})

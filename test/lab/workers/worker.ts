// One process of the fleet: waits to be told what it is, is that, and ends when it is told to, or dies.

import { LedgerWriter } from '../ledger/writer.ts'
import { consume } from './consumer.ts'
import { check, offerHalves } from './half-producer.ts'
import { consumeOnce } from './inbox-consumer.ts'
import { type Job, type Order, TRY_AGAIN, type Word, type Work } from './job.ts'
import { Moorings } from './moorings.ts'
import { operate } from './operator.ts'
import { write } from './outbox-writer.ts'
import { produce } from './producer.ts'
import { relay } from './relay.ts'
import { ackFirst, endBadly, forget } from './sabotage.ts'

/** The services did not answer: whoever started this process starts it again. */
const PASSING = new Set([
  'DATABASE_UNAVAILABLE',
  'STORE_UNAVAILABLE',
  'NOT_CONNECTED',
  'BROKER_TIMEOUT',
  'CHANNEL_LOST',
])

let work: Work | undefined

process.on('message', (order: Order) => {
  void obey(order).catch((error: unknown) => {
    console.error(error)
    const passing = work === undefined && PASSING.has((error as { code?: string }).code ?? '')
    process.exit(passing ? TRY_AGAIN : 1)
  })
})

async function obey(order: Order): Promise<void> {
  if ('start' in order) {
    const moorings = new Moorings(order.start.amqp, say)
    work = await begin(order.start)
    say('ready')
    moorings.tell()
  } else if ('flow' in order) work?.flow?.(order.flow)
  else if ('enough' in order) work?.enough?.()
  else {
    await work?.close()
    process.exit(0)
  }
}

function begin(job: Job): Promise<Work> {
  const ledger = new LedgerWriter(job.folder, job.worker)
  process.once('exit', () => ledger.close())
  switch (job.role) {
    case 'producer':
      return produce(job, ledger, () => say('accepted'))
    case 'outbox-writer':
      return write(job, ledger, () => say('accepted'))
    case 'relay':
      return relay(job)
    case 'consumer':
      return job.sabotage && job.sabotage !== 'no-owner-check'
        ? { 'acks-first': ackFirst, 'no-record': forget, 'no-good-end': endBadly }[job.sabotage](job, ledger)
        : consume(job, ledger)
    case 'inbox-consumer':
      return consumeOnce(job, ledger)
    case 'operator':
      return operate(job, ledger)
    case 'half-producer':
      return offerHalves(job, ledger, () => say('accepted'))
    case 'half-checker':
      return check(job, ledger)
  }
}

function say(word: Word): void {
  process.send?.(word)
}

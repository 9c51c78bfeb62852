// One process of the scenario: waits to be told what it is, is that, and dies where it was planned.

import { connect } from '../../../lib/index.ts'
import { eventNames, onEvent } from '../../../lib/observability/events.ts'
import { onParent, tellParent } from '../../support/child.ts'
import { consume } from './consumer.ts'
import { charge } from './half.ts'
import { consumeNaively, writeNaively } from './naive.ts'
import { type Order, type Place, plainName, type Role, TRY_AGAIN, type Work } from './place.ts'
import { relay } from './relay.ts'
import { Steps } from './steps.ts'
import { startTap } from './wire.ts'
import { write } from './writer.ts'

type Surehop = Awaited<ReturnType<typeof connect>>

const MESSAGING = {
  relay,
  consumer: consume,
  half: charge,
  'naive writer': writeNaively,
  'naive consumer': consumeNaively,
} as const
/** Of connections and channels there are many, and nothing is decided at them. */
const PLUMBING = /^(connection|channel|topology|consumer|relay)\./

/** A machine under load: whoever started the process starts it again. */
const PASSING = new Set(['DATABASE_UNAVAILABLE', 'STORE_UNAVAILABLE', 'NOT_CONNECTED', 'BROKER_TIMEOUT'])

let steps: Steps
let work: Work = { close: async () => {} }

onParent((message) => {
  void obey(message as unknown as Order).catch((error: unknown) => {
    console.error(error)
    steps.tell()
    process.exit(PASSING.has((error as { code?: string }).code ?? '') ? TRY_AGAIN : 1)
  })
})

async function obey(order: Order): Promise<void> {
  if ('start' in order) {
    const { role, place, file, plan } = order.start
    steps = new Steps(file)
    steps.plan(plan)
    work = await open(role, place)
    tellParent('ready')
  } else if ('plan' in order) steps.plan(order.plan)
  else if ('rest' in order) work.rest?.()
  else {
    steps.close()
    await work.close()
    steps.tell()
    process.exit(0)
  }
}

async function open(role: Role, place: Place): Promise<Work> {
  if (role === 'writer') return write(place, steps)
  for (const name of eventNames.filter((name) => !PLUMBING.test(name)))
    onEvent(name, () => steps.reach(`event ${name}`, 'at'))
  const amqp = await startTap(place.amqp, steps, plainName)
  const surehop: Surehop = await connect({ amqp, service: role, reconnectBaseMs: 50, reconnectCapMs: 500 })
  const messaging = await MESSAGING[role](surehop, place, steps)
  return {
    ...messaging,
    async close() {
      await messaging.close()
      await surehop.close()
    },
  }
}

// A queue that is full, on a broker that never tells a channel it has refused that there is room again (RabbitMQ 3.10): how a history
// comes to the moment at which the publisher takes a new channel, and how it must end once the broker goes on and nobody else interferes.

import { expect } from 'chai'
import { PATIENCE_MS } from '../../lib/producer/refusals.ts'
import { type Scenario, WINDOW, type World } from './publisher-world.ts'

const FULL = 'full'
const DEADLINE_MS = 60_000
/** With so much left, the broker may refuse all to one queue anew, and the channel be renewed twice. */
const AT_LEAST_LEFT_MS = 35_000

/** Two for the full queue, one of them again, and two for another, one of which a nack ends. */
export const RENEWAL: Scenario = {
  deadlineMs: DEADLINE_MS,
  atOnce: true,
  publishes: [
    { id: 'refused', mandatory: true, to: FULL },
    { id: 'other', mandatory: true },
    { id: 'also refused', mandatory: false, to: FULL },
    { id: 'refused', mandatory: true, to: FULL },
    { id: 'impatient', mandatory: true, failsOnNack: true },
  ],
}

/** Publishes to the full queue until the next nack makes the publisher take another channel. The send that awaits it is on the wire. */
export async function toTheBrink(world: World): Promise<void> {
  const { time } = world
  world.publish()
  await time.settle()
  for (const since = time.now; time.now - since < PATIENCE_MS; ) {
    world.answer(world.sent, 'nack')
    expect(await time.pass(() => world.sent.length > 0, DEADLINE_MS)).to.equal(true)
  }
  expect(world.renewals).to.equal(0)
}

/**
 * The broker answers everything from now on, but goes on refusing a queue on a channel on which it has refused it.
 * @throws where an open publish is not confirmed, or the window is not whole afterwards
 */
export async function goOn(world: World): Promise<void> {
  const { time, publishes } = world
  const open = publishes.filter(({ end, fates, id }) => !end && !fates.includes('returned') && id !== 'impatient')
  world.unblock()
  const enough = time.now < DEADLINE_MS - AT_LEAST_LEFT_MS
  const ended = () => publishes.every(({ end }) => end) && world.sent.length === 0
  for (const until = time.now + 2 * DEADLINE_MS; !ended(); ) {
    expect(await time.pass(() => ended() || world.sent.length > 0, until), 'all is answered').to.equal(true)
    for (const one of world.sent) world.answer([one], world.refuses(one) ? 'nack' : 'ack')
  }
  if (enough) for (const { id, end } of open) expect(end, `publish ${id}, with a new channel`).to.equal('confirmed')
  if (!world.closing) await fill(world)
}

/** As much as the window takes goes out at once: no slot and no byte of it is held by what has ended. */
async function fill(world: World): Promise<void> {
  const { windowMessages, windowBytes } = WINDOW
  const bytes = windowBytes / windowMessages
  for (let n = 0; n < windowMessages; n++) world.publish({ id: `probe ${n}`, mandatory: true, bytes })
  const written = () => world.sent.length === windowMessages
  expect(await world.time.pass(written, world.time.now + DEADLINE_MS / 2), 'the window is whole').to.equal(true)
  world.answer(world.sent, 'ack')
}

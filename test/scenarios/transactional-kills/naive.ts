// What these guarantees replace, for the proof that the kills bite: a publish after the commit, and a consumer without an inbox.

import { setTimeout as pause } from 'node:timers/promises'
import { v7 } from 'uuid'
import type { Producer, Surehop } from '../../../lib/index.ts'
import { type Place, pauseAfter, type Work } from './place.ts'
import { tappedPool } from './sql.ts'
import type { Steps } from './steps.ts'

export async function writeNaively(surehop: Surehop, place: Place, steps: Steps): Promise<Work> {
  const pool = tappedPool(place.database, steps)
  const producer = surehop.producer()
  const transaction = async () => {
    const id = `w${v7()}`
    const client = await pool.connect()
    await client.query('BEGIN')
    await client.query('INSERT INTO orders (id, messages) VALUES ($1, 1)', [id])
    await client.query('COMMIT')
    client.release()
    await tell(producer, place, id)
  }
  let stopped = false
  const run = async () => {
    for (let n = 0; !stopped; n++) {
      await transaction()
      await pause(pauseAfter(n))
    }
  }
  const running = run()
  const rest = () => {
    stopped = true
  }
  const close = async () => {
    rest()
    await running
  }
  return { rest, close }
}

async function tell(producer: Producer, place: Place, id: string): Promise<void> {
  await producer.publish(place.events, { type: 'order.placed', messageId: `${id}.0`, body: { order: id } })
}

export async function consumeNaively(surehop: Surehop, place: Place, steps: Steps): Promise<Work> {
  const pool = tappedPool(place.database, steps)
  await surehop.consume(place.work, { concurrency: 5 }, async ({ messageId }) => {
    await pool.query('INSERT INTO effects (message) VALUES ($1)', [messageId])
    steps.reach('handler', 'after')
  })
  return { close: async () => {} }
}

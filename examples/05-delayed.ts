/** Delays: a message is delivered no earlier than `delayMs` from now, up to 30 days; it waits in the broker, not in a process. */
import { connect, onEvent } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-05'
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'reminders' })

const delaysMs = [1_500, 0, 700]
let left = delaysMs.length
const done = new Promise<void>((resolve) => onEvent('message.completed', () => --left || resolve()))

const begun = performance.now()
await surehop.consume<{ delayMs: number }>(queue, {}, ({ body }) => {
  const afterMs = Math.round(performance.now() - begun)
  console.log(`asked for ${body.delayMs} ms, came after ${afterMs} ms`)
})

const producer = surehop.producer()
await Promise.all(delaysMs.map((delayMs) => producer.send(queue, { body: { delayMs }, delayMs })))
await done

/** Consuming once: a message that comes again with the same id is acked, and the handler is not run. */
import { connect, onEvent, RedisIdempotencyStore } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-02'
const inbox = new RedisIdempotencyStore({ url: process.env['REDIS_URL'] ?? 'redis://localhost' })
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'mail' })

const duplicate = new Promise<void>((resolve) =>
  onEvent('message.duplicate', ({ messageId }) => resolve(console.log(`dropped a copy of ${messageId}`))),
)
const consumer = await surehop.consume(queue, { idempotency: inbox }, (message, { attempt }) => {
  console.log(`handled ${message.messageId}, attempt ${attempt}:`, message.body)
})

const { messageId } = await surehop.producer().send(queue, { body: { to: 'anna@example.com' } })
await surehop.producer().send(queue, { messageId, body: { to: 'anna@example.com' } })

await duplicate
await consumer.close()
await inbox.close()

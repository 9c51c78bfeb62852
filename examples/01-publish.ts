/** Publishing: `publish()` resolves only when the broker has confirmed and routed the message; otherwise it says what is known. */
import { connect, PublishFailed } from '../lib/index.ts'

const exchange = process.argv[2] ?? 'example-01'
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'shop' })
const producer = surehop.producer()

await surehop.declare({
  exchanges: [{ name: exchange, type: 'topic' }],
  queues: [{ name: `${exchange}.mail`, arguments: { 'x-queue-type': 'quorum' } }],
  bindings: [{ source: exchange, queue: `${exchange}.mail`, routingKey: 'order.*' }],
})

const receipt = await producer.publish(exchange, { type: 'order.placed', body: { id: 'A-1', totalCents: 4_990 } })
console.log(`confirmed: message ${receipt.messageId}, transaction ${receipt.transactionId}`)

try {
  await producer.publish(exchange, { type: 'invoice.sent', body: { id: 'A-1' } })
} catch (error) {
  if (!(error instanceof PublishFailed)) throw error
  console.log(`not routed: ${error.outcome}, and ${error.retryable ? 'a' : 'no'} repeat would help`)
}

/** Retries: a failed attempt waits in the broker and comes back; what cannot succeed goes to the dead letters at once. */
import { connect, DeadLetterNow, exponential, onEvent, RetryLater } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-03'
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'payments' })

onEvent('message.retried', ({ delayMs, error }) => console.log(`  again in about ${delayMs} ms: ${error}`))
const ends = Promise.all([
  new Promise((resolve) => onEvent('message.completed', resolve)),
  new Promise((resolve) => onEvent('message.dead-lettered', resolve)),
])

const retry = { attempts: 5, backoff: exponential({ baseMs: 200, capMs: 2_000 }) }
await surehop.consume<{ cents: number }>(queue, { retry }, ({ body }, { attempt }) => {
  console.log(`${body.cents} cents, attempt ${attempt}`)
  if (body.cents <= 0) throw new DeadLetterNow('nothing to pay')
  if (attempt === 1) throw new Error('the bank does not answer')
  if (attempt === 2) throw new RetryLater(500, 'the bank asks for half a second')
  console.log('  paid')
})

await surehop.producer().send(queue, { body: { cents: 4_990 } })
await surehop.producer().send(queue, { body: { cents: 0 } })
const [, dead] = await ends
console.log(`one is paid, one is in ${queue}.dead:`, (dead as { reason: string }).reason)

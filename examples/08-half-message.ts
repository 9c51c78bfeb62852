/** The half message, for work whose store has no place for an outbox: stored before the work, sent after it, asked for if nobody tells. */
import { connect, onEvent, RedisDecisionStore } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-08'
const decisions = new RedisDecisionStore(process.env['REDIS_URL'] ?? 'redis://localhost')
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'payments' })

/** What was charged, by transaction: in real life a file, a document database, a bank. */
const charges = new Map<string, number>()
const payments = await surehop.transactional(queue, {
  decisions,
  firstCheckMs: 1_000,
  check: (transactionId) => {
    console.log(`checked back: ${charges.get(transactionId) ?? 'nothing'} was charged`)
    return charges.has(transactionId) ? 'commit' : 'rollback'
  },
})

let left = 2
const told = new Promise<void>((resolve) => onEvent('message.completed', () => --left || resolve()))
await surehop.consume<{ cents: number }>(queue, {}, ({ body }) => console.log(`told: ${body.cents}`))
const taken = (cents: number) => [{ queue, type: 'payment.taken', body: { cents } }]

await payments.run(taken(4_990), (transactionId) => charges.set(transactionId, 4_990))
await payments.run(taken(100), () => Promise.reject(new Error('the bank refused'))).catch(() => console.log('refused'))
const { transactionId } = await payments.prepare(taken(700))
charges.set(transactionId, 700) // and now the process dies: nobody commits

await told
await payments.close()
await decisions.close()

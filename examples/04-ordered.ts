/** Order: messages of one key run one after another, repeats included; different keys run side by side. */
import { setTimeout as pause } from 'node:timers/promises'
import { connect, fixed, onEvent } from '../lib/index.ts'

const queue = process.argv[2] ?? 'example-04'
await using surehop = await connect({ amqp: process.env['AMQP_URL'] ?? 'amqp://localhost', service: 'accounts' })

const seen: Record<string, string[]> = {}
let left = 6
const done = new Promise<void>((resolve) => onEvent('message.completed', () => --left || resolve()))

const retry = { attempts: 3, backoff: fixed({ delayMs: 100 }) }
await surehop.consume<string>(queue, { orderBy: 'key', retry }, async ({ key = '', body }, { attempt }) => {
  await pause(Math.random() * 20)
  if (body === 'withdraw' && attempt === 1) throw new Error('try once more: the close that follows must wait')
  seen[key] = [...(seen[key] ?? []), body]
})

const producer = surehop.producer()
for (const body of ['open', 'withdraw', 'close'])
  for (const key of ['account-1', 'account-2']) await producer.send(queue, { key, body })

await done
console.log(seen)

// `npm run fuzz`: hostile messages to every kind of consumer, and the command over what is left of them.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Command } from 'commander'
import { deleteUnique } from '../support/unique.ts'
import { campaign } from './campaign.ts'
import { moves } from './moves.ts'
import { screens } from './screens.ts'

const LONG = 100_000
const SHORT = 2_000
/** The most messages of a batch: what each batch waits for is shared by more of them in a long run; a short one has many batches. */
const BATCH = { long: 1_000, short: 400 }
/** A run of so many messages would show a leak of a few hundred bytes for each: more than this. */
const LEAK_SHOWS = 50_000
const MAY_GROW_BYTES = 16 * 2 ** 20

const flags = new Command('fuzz')
  .option('--messages <n>', 'so many messages', Number, LONG)
  .option('--seed <n>', 'the same seed makes the same messages', Number, Date.now() % 2 ** 31)
  .option('--short', `${SHORT} messages`)
  .parse()
  .opts<{ messages: number; seed: number; short?: boolean }>()

const messages = flags.short ? SHORT : flags.messages
console.log(`${messages} messages, --seed ${flags.seed}`)
for (const event of ['unhandledRejection', 'uncaughtException'] as const)
  process.on(event, (error) => {
    console.error(`${event}, --seed ${flags.seed}:`, error)
    process.exit(1)
  })

// The garbage collector at hand, so that what is in use can be told from what is not collected yet.
setFlagsFromString('--expose-gc')
globalThis.gc = runInNewContext('gc') as typeof globalThis.gc

let told = 0
const result = await campaign({
  messages,
  seed: flags.seed,
  batch: messages >= LONG ? BATCH.long : BATCH.short,
  onBatch: (sent) => {
    if (sent - told < messages / 20) return
    told = sent
    console.log(`${sent} sent, ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`)
  },
  onFailure: (count, error) => console.log(`failed with ${count}: ${error.message.slice(0, 500)}`),
})
const { sent, seconds, ends, failure, world, heap } = result
console.log(`${sent} messages in ${Math.round(seconds)} s, ${Math.round(sent / seconds)}/s: ${JSON.stringify(ends)}`)
if (failure) console.error(`\n${failure}\n\nOnce more: npm run fuzz -- --messages ${messages} --seed ${flags.seed}`)
else {
  const [quarter, end] = heap!
  console.log(`heap: ${mebibytes(quarter)} MiB at a quarter, ${mebibytes(end)} MiB at the end`)
  const { wrong, letters } = await moves(world)
  console.log(`${letters} letters restored, exported, imported, edited and replayed: ${wrong.length} wrong`)
  for (const one of wrong) console.error(one)
  const { offences, commands } = await screens(world)
  console.log(`${commands} commands over all letters: ${offences.length} offences`)
  for (const one of offences) console.error(one)
  if (offences.length + wrong.length > 0 || (sent >= LEAK_SHOWS && end > quarter + MAY_GROW_BYTES)) process.exitCode = 1
}
if (failure) process.exitCode = 1
await world.close()
await deleteUnique()
process.exit()

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20)
}

// `npm run fuzz`: hostile messages to every kind of consumer, hostile rows in an outbox, forged half messages, and the command over
// what is left of them.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Command } from 'commander'
import { deleteUnique } from '../support/unique.ts'
import { campaign, type Ground, HALVES, MESSAGES, type Result, ROWS, type Sendable } from './campaign.ts'
import { moves } from './moves.ts'
import { moreScreens, screens } from './screens.ts'

const LONG = 100_000
/** Letters of each queue that a long run looks at one by one. */
const SHOWN = 50
const SHORT = 2_000
/** The most messages of a batch: what each batch waits for is shared by more of them in a long run; a short one has many batches. */
const BATCH = { long: 1_000, short: 400 }
/** One row, and one half message, for so many messages. */
const FEWER = 10
const FEWER_BATCH = 300
/** A run of so many messages would show a leak of a few hundred bytes for each: more than this. */
const LEAK_SHOWS = 50_000
const MAY_GROW_BYTES = 16 * 2 ** 20

const flags = new Command('fuzz')
  .option('--messages <n>', 'so many messages; a tenth of it rows, and half messages', Number, LONG)
  .option('--seed <n>', 'the same seed makes the same messages', Number, Date.now() % 2 ** 31)
  .option('--short', `${SHORT} messages`)
  .parse()
  .opts<{ messages: number; seed: number; short?: boolean }>()

const messages = flags.short ? SHORT : flags.messages
const { seed } = flags
console.log(`${messages} messages, --seed ${seed}`)
for (const event of ['unhandledRejection', 'uncaughtException'] as const)
  process.on(event, (error) => {
    console.error(`${event}, --seed ${seed}:`, error)
    process.exit(1)
  })

// The garbage collector at hand, so that what is in use can be told from what is not collected yet.
setFlagsFromString('--expose-gc')
globalThis.gc = runInNewContext('gc') as typeof globalThis.gc

const few = Math.ceil(messages / FEWER)
const parts = [
  await sent('messages', MESSAGES, messages, messages >= LONG ? BATCH.long : BATCH.short),
  await sent('rows', ROWS, few, FEWER_BATCH),
  await sent('half messages', HALVES, few, FEWER_BATCH),
] as const
const [letters, rows, halves] = parts

if (letters.failure === undefined) {
  const [quarter, end] = letters.heap!
  console.log(`heap: ${mebibytes(quarter)} MiB at a quarter, ${mebibytes(end)} MiB at the end`)
  if (letters.sent >= LEAK_SHOWS && end > quarter + MAY_GROW_BYTES) process.exitCode = 1
  const moved = await moves(letters.world)
  told(`${moved.letters} letters restored, exported, imported, edited and replayed`, moved.wrong)
  const shown = await screens(letters.world, messages >= LONG ? SHOWN : undefined)
  told(`${shown.commands} commands over all letters`, shown.offences)
}
if (rows.failure === undefined && halves.failure === undefined) {
  told('rows tried again and dropped', await rows.world.moves())
  told('half messages rolled back', await halves.world.moves())
  await rows.world.leave(FEWER_BATCH, seed)
  await halves.world.leave(FEWER_BATCH, seed)
  const shown = await moreScreens(rows.world, halves.world, 100)
  told(`${shown.commands} commands over all rows and transactions`, shown.offences)
}
for (const { world } of parts) await world.close()
await deleteUnique()
process.exit()

async function sent<One, W extends Sendable<One>>(
  what: string,
  ground: Ground<One, W>,
  count: number,
  batch: number,
): Promise<Result<W>> {
  let said = 0
  const onBatch = (so: number) => {
    if (so - said < count / 20) return
    said = so
    console.log(`${so} sent, ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`)
  }
  const onFailure = (of: number, error: Error) => console.log(`failed with ${of}: ${error.message.slice(0, 500)}`)
  const result = await campaign(ground, { messages: count, seed, batch, onBatch, onFailure })
  const { seconds, ends, failure } = result
  const perSecond = Math.round(result.sent / seconds)
  console.log(`${result.sent} ${what} in ${Math.round(seconds)} s, ${perSecond}/s: ${JSON.stringify(ends)}`)
  if (failure) {
    process.exitCode = 1
    console.error(`\n${failure}\n\nOnce more: npm run fuzz -- --messages ${messages} --seed ${seed}`)
  }
  return result
}

function told(what: string, wrong: readonly string[]): void {
  console.log(`${what}: ${wrong.length} wrong`)
  for (const one of wrong) console.error(one)
  if (wrong.length > 0) process.exitCode = 1
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20)
}

/** `surehop topology`: what a consumer of a queue declares. Needs no broker. */
import { Command } from 'commander'
import {
  delayTopology,
  exponential,
  InvalidOption,
  levelFor,
  type Topology,
  workQueueTopology,
} from '../../lib/index.ts'
import { Output } from '../terminal.ts'
import { safe } from '../text.ts'

interface Flags {
  readonly json?: boolean
  readonly delay: string
}

/** The longest wait of the default retry policy, ms. */
const DEFAULT_DELAY_MS = exponential().maxDelayMs(100)

export function topologyCommand(): Command {
  return new Command('topology')
    .description('print what a consumer of this queue declares on the broker')
    .argument('<queue>')
    .option('--delay <ms>', 'the longest delay of its retries, ms', String(DEFAULT_DELAY_MS))
    .option('--json', 'one JSON object per line')
    .addHelpText('after', '\nExamples:\n  surehop topology orders\n  surehop topology orders --json | jq -r .name')
    .action(async (queue: string, flags: Flags) => {
      process.exitCode = await print(queue, flags)
    })
}

async function print(queue: string, flags: Flags): Promise<number> {
  const delayMs = Number(flags.delay)
  if (!(delayMs >= 0)) throw new InvalidOption(`expected --delay to be a number of ms, got "${flags.delay}"`)
  const output = new Output(process.stdout, process.stderr)
  for (const [title, topology] of [
    ['Of this queue', workQueueTopology(queue)],
    ['Shared by all queues of the virtual host: delays', delayTopology(levelFor(delayMs))],
  ] as const)
    await (flags.json ? json(output, topology) : section(output, title, topology))
  return 0
}

async function json(output: Output, { exchanges, queues, bindings }: Topology): Promise<void> {
  for (const exchange of exchanges) await output.json({ kind: 'exchange', ...exchange })
  for (const queue of queues) await output.json({ kind: 'queue', ...queue })
  for (const binding of bindings) await output.json({ kind: 'binding', ...binding })
}

async function section(output: Output, title: string, { exchanges, queues, bindings }: Topology): Promise<void> {
  const { paint } = output
  await output.line(paint.bold(title))
  for (const { name, arguments: args } of queues) {
    await output.line(`  queue ${safe(name)}`)
    for (const line of argumentLines(args, output.width - INDENT))
      await output.line(paint.dim(`${' '.repeat(INDENT)}${line}`))
  }
  for (const { name, type } of exchanges) await output.line(`  ${type} exchange ${safe(name)}`)
  if (bindings.length > 0) await output.line(`  and ${bindings.length} bindings between them (--json lists them)`)
  await output.line()
}

const INDENT = 4

/** `name=value` pairs, as many on a line as fit. */
function argumentLines(args: Readonly<Record<string, unknown>>, width: number): string[] {
  const lines: string[] = []
  for (const [name, value] of Object.entries(args)) {
    const pair = `${name}=${value === '' ? "''" : safe(String(value))}`
    const last = lines.at(-1)
    if (last !== undefined && last.length + pair.length + 1 <= width) lines[lines.length - 1] = `${last} ${pair}`
    else lines.push(pair)
  }
  return lines
}

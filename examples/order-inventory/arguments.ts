/** The command line of the demo. */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

export interface Arguments {
  /** Path of the orders, `-` for standard input. */
  readonly orders: string
  /** Path of the starting stock; undefined: made to fit the orders. */
  readonly stock: string | undefined
  /** Orders per second. */
  readonly rate: number
}

export const USAGE = `Three services, an order file, and everything that can go wrong.

  npm run demo -- [--orders FILE | -] [--stock FILE] [--rate N]

  --orders FILE  one order per line, as in examples/order-inventory/orders.ndjson; - reads standard input
  --stock FILE   what lies on the shelves, {"SKU": pieces}; default for other orders: 90 % of what they ask for
  --rate N       orders placed per second, 1 to 2,000; default 150

It needs AMQP_URL, REDIS_URL and DATABASE_URL, which npm run demo provides.`

const DEFAULT_RATE = 150

/** @throws Error with what was expected */
export function parseArguments(args: readonly string[]): Arguments | 'help' {
  const { values } = parseArgs({
    args: [...args],
    options: {
      orders: { type: 'string' },
      stock: { type: 'string' },
      rate: { type: 'string', default: String(DEFAULT_RATE) },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return 'help'
  const rate = Number(values.rate)
  if (!(Number.isInteger(rate) && rate >= 1 && rate <= 2_000))
    throw new Error(`expected --rate to be a whole number from 1 to 2000, got "${values.rate}"`)
  return {
    orders: values.orders ?? beside('orders.ndjson'),
    stock: values.stock ?? (values.orders === undefined ? beside('stock.json') : undefined),
    rate,
  }
}

function beside(name: string): string {
  return fileURLToPath(new URL(`./${name}`, import.meta.url))
}

/**
 * The demo: three services, an order file, and everything that can go wrong; then the books, the dead letters, a fix, a replay, and
 * the books again. Exit code 0: the books balance. 1: they do not, or something broke. 2: wrong arguments or orders. 130: interrupted.
 */
import { type Arguments, parseArguments, USAGE } from './arguments.ts'
import { n } from './books.ts'
import type { Order } from './order.ts'
import { readOrders, readStock, stockFor } from './orders-file.ts'
import { Screen } from './screen.ts'
import { Shop } from './shop.ts'
import { Story } from './story.ts'

const METHODS_OF_VERSION_1 = 'card,paypal,sepa'
const METHODS_OF_VERSION_2 = `${METHODS_OF_VERSION_1},twint`
const EXIT = { balanced: 0, unbalanced: 1, usage: 2, interrupted: 130, terminated: 143 } as const

interface Goods {
  readonly orders: ReadonlyMap<string, Order>
  readonly stock: ReadonlyMap<string, number>
}

async function main(): Promise<number> {
  const args = parseArguments(process.argv.slice(2))
  if (args === 'help') {
    console.log(USAGE)
    return EXIT.balanced
  }
  const goods = await read(args)
  const { AMQP_URL: amqpUrl, REDIS_URL: redisUrl, DATABASE_URL: databaseUrl } = process.env
  if (!amqpUrl || !redisUrl || !databaseUrl)
    throw new Usage('AMQP_URL, REDIS_URL and DATABASE_URL are not all set: `npm run demo` provides them')
  return run(args, goods, { amqpUrl, redisUrl })
}

class Usage extends Error {}

async function read({ orders: source, stock }: Arguments): Promise<Goods> {
  try {
    const orders = await readOrders(source)
    return { orders, stock: stock === undefined ? stockFor(orders.values()) : await readStock(stock) }
  } catch (error) {
    throw new Usage((error as Error).message)
  }
}

async function run(
  { rate }: Arguments,
  { orders, stock }: Goods,
  urls: { readonly amqpUrl: string; readonly redisUrl: string },
): Promise<number> {
  const screen = new Screen()
  const lines = [...orders.values()].reduce((sum, order) => sum + order.lines.length, 0)
  screen.title('Surehop: orders, inventory, payments, and everything that can go wrong')
  screen.event(`${n(orders.size)} orders with ${n(lines)} lines, ${n(stock.size)} products on the shelves`)
  const tell = (what: string, mark?: 'good' | 'bad') => screen.event(what, mark)
  const shop = new Shop({ orders, stock, ...urls, methods: METHODS_OF_VERSION_1, tell })
  onInterrupt(screen, shop)
  try {
    await shop.open()
    screen.event('three services are up, each a process with its own data', 'good')
    const story = new Story(shop, screen, orders, stock)
    await story.trade(rate)
    const balanced = await story.books('The books')
    await story.repair(METHODS_OF_VERSION_2)
    const balancedAgain = await story.books('The books again')
    story.closingWords()
    return balanced && balancedAgain ? EXIT.balanced : EXIT.unbalanced
  } finally {
    screen.settle()
    await shop.close()
  }
}

let interrupted = false

/** Ctrl-C, kill and a closed pipe leave nothing behind; a second signal does not wait. */
function onInterrupt(screen: Screen, shop: Shop): void {
  const stop = (code: number) => {
    if (interrupted) process.exit(code)
    interrupted = true
    screen.freeze()
    screen.event('interrupted: stopping the services and cleaning up', 'bad')
    shop.close().finally(() => process.exit(code))
  }
  process.on('SIGINT', () => stop(EXIT.interrupted))
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => stop(EXIT.terminated))
  process.stdout.on('error', () => interrupted || stop(EXIT.unbalanced))
}

main().then(
  (code) => interrupted || process.exit(code),
  (error: Error & { code?: string }) => {
    // What an interruption breaks off is no news; the exit comes when all is cleaned up.
    if (interrupted) return
    console.error(`\n${error.message}`)
    const usage =
      error instanceof Usage || error.code?.startsWith('ERR_PARSE_ARGS') || /^expected --/.test(error.message)
    process.exit(usage ? EXIT.usage : EXIT.unbalanced)
  },
)

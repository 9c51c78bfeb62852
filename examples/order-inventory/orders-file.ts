/**
 * Reads orders, one JSON object per line, from a file or standard input. Promises: a line that is no order is named with its number and
 * the path of the mistake; no line longer than 1 MiB and no more than 100,000 orders are taken; ids are unique.
 */
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { StringDecoder } from 'node:string_decoder'
import { Order } from './order.ts'

const MAX_LINE_CHARS = 1024 * 1024
const MAX_ORDERS = 100_000

/** An order file cannot be used; the message says where and why. */
export class OrderFileInvalid extends Error {}

/**
 * All orders of `source` (a path, or `-` for standard input), by id, in the order of the file.
 * @throws OrderFileInvalid
 */
export async function readOrders(source: string): Promise<ReadonlyMap<string, Order>> {
  const name = source === '-' ? 'standard input' : source
  const orders = new Map<string, Order>()
  const lineOf = new Map<string, number>()
  let number = 0
  for await (const line of lines(await chunksOf(source), name)) {
    number++
    if (line.trim() === '') continue
    const order = parseOrder(line, `${name}, line ${number}`)
    const before = lineOf.get(order.id)
    if (before !== undefined)
      throw new OrderFileInvalid(`${name}, line ${number}: id: order "${order.id}" stands in line ${before} already`)
    if (orders.size === MAX_ORDERS) throw new OrderFileInvalid(`${name} has more than ${MAX_ORDERS} orders`)
    lineOf.set(order.id, number)
    orders.set(order.id, order)
  }
  if (orders.size === 0) throw new OrderFileInvalid(`${name} has no orders: expected one JSON object per line`)
  return orders
}

/** @throws OrderFileInvalid beginning with `where`, then the path */
export function parseOrder(line: string, where: string): Order {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new OrderFileInvalid(`${where}: not JSON: ${(cause as Error).message}`, { cause })
  }
  const parsed = Order.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue, ...more] = parsed.error.issues
  const others = more.length > 0 ? ` (and ${more.length} more)` : ''
  throw new OrderFileInvalid(`${where}: ${pathOf(issue!.path) || 'the order'}: ${issue!.message}${others}`)
}

function pathOf(path: readonly PropertyKey[]): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`))
    .join('')
    .replace(/^\./, '')
}

async function chunksOf(source: string): Promise<AsyncIterable<Buffer>> {
  if (source === '-') return process.stdin
  const stream = createReadStream(source)
  await once(stream, 'open').catch((cause: Error) => {
    throw new OrderFileInvalid(`the order file cannot be read: ${cause.message}`, { cause })
  })
  return stream
}

/** Node's readline would hold a line of any length. */
async function* lines(chunks: AsyncIterable<Buffer>, name: string): AsyncGenerator<string> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of chunks) {
    const parts = (rest + decoder.write(chunk)).split('\n')
    rest = parts.pop()!
    if (rest.length > MAX_LINE_CHARS)
      throw new OrderFileInvalid(`${name} has a line of more than ${MAX_LINE_CHARS} characters`)
    yield* parts
  }
  if (rest !== '') yield rest
}

/** The starting stock of a file such as `stock.json`: SKU -> pieces. @throws OrderFileInvalid */
export async function readStock(path: string): Promise<ReadonlyMap<string, number>> {
  try {
    const stock = Object.entries(JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>)
    for (const [sku, pieces] of stock)
      if (!Number.isInteger(pieces) || (pieces as number) < 0)
        throw new Error(`${sku}: expected a whole number of pieces >= 0, got ${JSON.stringify(pieces)}`)
    return new Map(stock as [string, number][])
  } catch (cause) {
    throw new OrderFileInvalid(`the stock file ${path} cannot be used: ${(cause as Error).message}`, { cause })
  }
}

/** For orders without a stock file: shelves that hold `cover` of what will be asked for, so that something sells out. */
export function stockFor(orders: Iterable<Order>, cover = 0.9): ReadonlyMap<string, number> {
  const asked = new Map<string, number>()
  for (const order of orders)
    for (const { sku, quantity } of order.lines) asked.set(sku, (asked.get(sku) ?? 0) + quantity)
  return new Map([...asked].map(([sku, quantity]) => [sku, Math.ceil(quantity * cover)]))
}

/**
 * Writes the sample: `orders.ndjson` (1,200 orders) and `stock.json`. Run it as `node --import tsx generate-orders.ts`; the seed is
 * fixed, so it always writes the same files. Demand is long-tailed, as in a real shop: a few products sell out, most do not.
 */
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { type Order, type OrderLine, totalOf } from './order.ts'

const SEED = 20_240_517
const ORDERS = 1_200
/** This many of the best sellers were ordered too sparingly by the shop... */
const SCARCE = 9
/** ...and cover this much of what is asked for. */
const SCARCE_COVER = 0.8
const OPENING = Date.UTC(2024, 4, 17, 6, 0, 0)
const SECONDS_BETWEEN = 36

const FAMILIES: readonly (readonly [code: string, name: string, cents: number, variants: readonly string[]])[] = [
  ['BOTTLE', 'Steel bottle', 1_995, ['500ml', '750ml', '1l']],
  ['SOCKS', 'Merino hiking socks', 1_690, ['S', 'M', 'L', 'XL']],
  ['LAMP', 'Head lamp', 3_490, ['200lm', '400lm']],
  ['TOWEL', 'Travel towel', 1_450, ['M', 'L']],
  ['MUG', 'Enamel mug', 1_190, ['white', 'blue', 'green']],
  ['TENT', 'Ridge tent', 28_900, ['1P', '2P', '3P']],
  ['MAT', 'Sleeping mat', 7_990, ['regular', 'long']],
  ['BAG', 'Down sleeping bag', 21_900, ['0C', '-7C', '-15C']],
  ['STOVE', 'Gas stove', 4_950, ['single', 'double']],
  ['GAS', 'Gas cartridge', 690, ['100g', '230g', '450g']],
  ['POT', 'Titanium pot', 5_490, ['0.75l', '1.3l']],
  ['SPORK', 'Titanium spork', 1_290, ['short', 'long']],
  ['PACK', 'Trekking pack', 16_900, ['40l', '55l', '70l']],
  ['DAYPACK', 'Day pack', 6_900, ['18l', '24l']],
  ['POLES', 'Trekking poles', 8_950, ['alu', 'carbon']],
  ['BOOTS', 'Leather boots', 23_900, ['39', '40', '41', '42', '43', '44', '45']],
  ['JACKET', 'Rain jacket', 17_900, ['S', 'M', 'L', 'XL']],
  ['FLEECE', 'Grid fleece', 8_900, ['S', 'M', 'L', 'XL']],
  ['HAT', 'Wool hat', 2_490, ['navy', 'rust', 'moss']],
  ['GLOVES', 'Liner gloves', 2_290, ['S', 'M', 'L']],
  ['FILTER', 'Water filter', 3_990, ['squeeze', 'pump']],
  ['KNIFE', 'Folding knife', 3_290, ['olive', 'beech']],
  ['ROPE', 'Accessory cord 5 mm', 890, ['5m', '10m']],
  ['CARABINER', 'Screw carabiner', 1_090, ['HMS', 'oval']],
  ['MAP', 'Hiking map 1:25,000', 1_380, ['north', 'south', 'east', 'west']],
  ['COMPASS', 'Base plate compass', 2_950, ['classic', 'mirror']],
  ['FIRSTAID', 'First aid kit', 2_890, ['solo', 'group']],
  ['SUNSCREEN', 'Sunscreen SPF 50', 1_590, ['50ml', '100ml']],
  ['BAR', 'Oat bar, box of 12', 1_990, ['apple', 'nut', 'cocoa']],
  ['POWERBANK', 'Power bank', 4_490, ['10Ah', '20Ah']],
  ['DRYBAG', 'Dry bag', 1_490, ['5l', '10l', '20l']],
  ['HAMMOCK', 'Hammock', 6_490, ['single', 'double']],
]

const FIRST =
  'Anna Ben Chiara David Elif Farid Greta Hugo Ines Jonas Katja Liam Mara Noah Olga Paul Rania Samir Tilda Uwe Vera Wim Yara Zoe Amélie Björn Łukasz Nuria Siobhán Teodora'.split(
    ' ',
  )
const LAST =
  'Andersen Bauer Costa Dubois Eriksson Ferrari García Hofmann Ivanova Jansen Kowalski Lefèvre Müller Novák O’Brien Papadopoulos Rossi Schmidt Tanaka Umarova Vogel Weber Yılmaz Zimmermann de-Vries Okafor Singh Moreau'.split(
    ' ',
  )
const CITIES =
  'Amsterdam Antwerp Barcelona Basel Berlin Bologna Brno Copenhagen Cork Dresden Freiburg Ghent Graz Hamburg Innsbruck Kraków Leipzig Lille Ljubljana Lyon Malmö Milan Munich Nantes Porto Turin Utrecht Vienna Zürich'.split(
    ' ',
  )
const CHANNELS = ['web', 'web', 'web', 'app', 'app', 'store'] as const

interface Product {
  readonly sku: string
  readonly name: string
  readonly unitPriceCents: number
}

/** What the shop has on its shelves at opening. */
export type Stock = Readonly<Record<string, number>>

/** The whole sample, from the seed. */
export function sample(seed = SEED, count = ORDERS): { readonly orders: readonly Order[]; readonly stock: Stock } {
  const random = mulberry32(seed)
  const products = shuffled(catalogue(), random)
  const choose = popularity(products, random)
  let second = 0
  const orders = Array.from({ length: count }, (_, n) => {
    second += Math.ceil(-Math.log(1 - random()) * SECONDS_BETWEEN)
    return order(n, second, random, choose)
  })
  return { orders, stock: stockFor(orders, products, random) }
}

function catalogue(): Product[] {
  return FAMILIES.flatMap(([code, name, cents, variants]) =>
    variants.map((variant, n) => ({
      sku: `${code}-${variant.toUpperCase()}`,
      name: `${name}, ${variant}`,
      unitPriceCents: cents + Math.round((cents * 0.15 * n) / 50) * 50,
    })),
  )
}

function order(n: number, second: number, random: () => number, choose: () => Product): Order {
  const lines = linesOf(2 + Math.floor(random() ** 2 * 5), random, choose)
  const pick = <T>(from: readonly T[]) => from[Math.floor(random() * from.length)]!
  return {
    id: `A-${100_001 + n}`,
    placedAt: new Date(OPENING + second * 1_000).toISOString(),
    channel: pick(CHANNELS),
    customer: { name: `${pick(FIRST)} ${pick(LAST)}`, city: pick(CITIES) },
    lines,
    totalCents: totalOf(lines),
    payment: payment(random),
  }
}

function linesOf(wanted: number, random: () => number, choose: () => Product): OrderLine[] {
  const lines = new Map<string, OrderLine>()
  while (lines.size < wanted) {
    const product = choose()
    const quantity = random() < 0.78 || product.unitPriceCents > 10_000 ? 1 : 2 + Math.floor(random() * 3)
    lines.set(product.sku, { ...product, quantity })
  }
  return [...lines.values()]
}

/** One card in thirty has no money; one customer in fifty pays with a method the payments service does not know at first. */
function payment(random: () => number): Order['payment'] {
  const method = random() < 0.02 ? 'twint' : random() < 0.7 ? 'card' : random() < 0.6 ? 'paypal' : 'sepa'
  const digits = String(Math.floor(random() * 9_000) + 1_000)
  const declined = random() < 1 / 30
  return { method, account: `tok_${digits}_${declined ? '0002' : '4242'}` }
}

/** Zipf: the k-th best seller sells 1/k^0.8 as often as the first. */
function popularity(products: readonly Product[], random: () => number): () => Product {
  const weights = products.map((_, rank) => 1 / (rank + 1) ** 0.8)
  const sum = weights.reduce((a, b) => a + b, 0)
  return () => {
    let left = random() * sum
    const rank = weights.findIndex((weight) => {
      left -= weight
      return left < 0
    })
    return products[Math.max(0, rank)]!
  }
}

function stockFor(orders: readonly Order[], products: readonly Product[], random: () => number): Stock {
  const asked = new Map<string, number>(products.map(({ sku }) => [sku, 0]))
  for (const { sku, quantity } of orders.flatMap(({ lines }) => lines)) asked.set(sku, asked.get(sku)! + quantity)
  const cover = (rank: number) => (rank < SCARCE ? SCARCE_COVER : 1.05 + random() * 0.4)
  return Object.fromEntries([...asked].map(([sku, quantity], rank) => [sku, Math.ceil(quantity * cover(rank)) + 1]))
}

function shuffled<T>(items: readonly T[], random: () => number): T[] {
  return items
    .map((item) => [random(), item] as const)
    .sort(([a], [b]) => a - b)
    .map(([, item]) => item)
}

/** A small seeded generator (Tommy Ettinger's Mulberry32, public domain): the same numbers on every machine. */
function mulberry32(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** The order file as text. */
export function asLines(orders: readonly Order[]): string {
  return orders.map((one) => `${JSON.stringify(one)}\n`).join('')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { orders, stock } = sample()
  writeFileSync(new URL('./orders.ndjson', import.meta.url), asLines(orders))
  writeFileSync(new URL('./stock.json', import.meta.url), `${JSON.stringify(stock, null, 2)}\n`)
}

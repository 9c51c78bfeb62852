// The demo takes only orders it understands, and says which line is wrong and where; its sample is what its generator writes.

import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { asLines, sample } from '../../examples/order-inventory/generate-orders.ts'
import { OrderFileInvalid, readOrders, readStock, stockFor } from '../../examples/order-inventory/orders-file.ts'

const SAMPLE = fileURLToPath(new URL('../../examples/order-inventory/orders.ndjson', import.meta.url))
const STOCK = fileURLToPath(new URL('../../examples/order-inventory/stock.json', import.meta.url))
const [FIRST = '', SECOND = ''] = readFileSync(SAMPLE, 'utf8').split('\n')

describe('the order file of the demo', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'orders-'))
  })
  after(() => rm(folder, { recursive: true }))

  async function refusal(text: string): Promise<string> {
    const path = join(folder, 'orders.ndjson')
    await writeFile(path, text)
    const error = await readOrders(path).catch((thrown: unknown) => thrown)
    expect(error).to.be.instanceOf(OrderFileInvalid)
    return (error as Error).message.replace(path, 'FILE')
  }

  it('is a real-looking sample: 1,200 orders of several lines, some products too scarce', async () => {
    const orders = await readOrders(SAMPLE)
    const stock = await readStock(STOCK)
    expect(orders.size).to.equal(1_200)
    expect([...orders.values()].every(({ lines }) => lines.length >= 2)).to.equal(true)
    const scarce = [...stockFor(orders.values(), 1)].filter(([sku, asked]) => (stock.get(sku) ?? 0) < asked)
    expect(scarce).to.have.length.above(3)
  })

  it('is what the committed generator writes', () => {
    const { orders, stock } = sample()
    expect(asLines(orders) === readFileSync(SAMPLE, 'utf8')).to.equal(true)
    expect(stock).to.deep.equal(JSON.parse(readFileSync(STOCK, 'utf8')))
  })

  it('may end without a newline, and may have empty lines', async () => {
    const path = join(folder, 'loose.ndjson')
    await writeFile(path, `\n${FIRST}\n\n${SECOND}`)
    expect([...(await readOrders(path)).keys()]).to.deep.equal(['A-100001', 'A-100002'])
  })

  it('names the line that is not JSON', async () => {
    expect(await refusal(`${FIRST}\n${SECOND.slice(0, -1)}\n`)).to.match(/^FILE, line 2: not JSON: /)
  })

  it('names the line and the path of a mistake', async () => {
    const text = FIRST.replace(/"quantity":(\d+)\}\]/, '"quantity":"$1"}]')
    expect(await refusal(`${SECOND}\n${text}\n`)).to.match(/^FILE, line 2: lines\[1\]\.quantity: .*expected number/)
  })

  it('refuses a total that is not the sum of its lines', async () => {
    const text = FIRST.replace(/"totalCents":\d+/, '"totalCents":1')
    expect(await refusal(text)).to.match(/^FILE, line 1: totalCents: expected the sum of the lines, \d+, got 1$/)
  })

  it('refuses an order that stands there twice', async () => {
    const message = await refusal(`${FIRST}\n${SECOND}\n${FIRST}\n`)
    expect(message).to.equal('FILE, line 3: id: order "A-100001" stands in line 1 already')
  })

  it('refuses what is no order file at all', async () => {
    expect(await refusal('')).to.include('has no orders')
    expect(await refusal('7\n')).to.match(/^FILE, line 1: the order: /)
    expect(await refusal('x'.repeat(1_100_000))).to.include('a line of more than')
    const missing = await readOrders(join(folder, 'nowhere')).catch((error: Error) => error.message)
    expect(missing).to.match(/^the order file cannot be read: ENOENT/)
  })
})

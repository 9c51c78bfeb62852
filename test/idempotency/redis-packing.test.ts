import { expect } from 'chai'
import fc from 'fast-check'
import { v4, v7 } from 'uuid'
import { type Place, placeOf, SHARDS, windowAt, writeIdentity } from '../../lib/idempotency/redis-packing.ts'

const anyV7 = fc
  .tuple(fc.nat({ max: 2 ** 48 - 1 }), fc.uint8Array({ minLength: 16, maxLength: 16 }))
  .map(([msecs, random]) => v7({ msecs, random }))

function identityOf(place: Place): Buffer {
  const identity = Buffer.alloc(11)
  writeIdentity(identity, place, 0)
  return identity
}

/** The way back: what is stored must determine the id. */
function unpack(window: number, identity: Buffer): string {
  const tail = identity.readUInt32BE(7)
  const id = Buffer.alloc(16)
  id.writeUIntBE(window * 2 ** 14 + (tail & 0x3fff), 0, 6)
  id[6] = 0x70 | ((tail >>> 22) & 0x0f)
  id[7] = (tail >>> 14) & 0xff
  id[8] = 0x80 | (tail >>> 26)
  for (let i = 0; i < 7; i++) id[15 - i] = identity[i]!
  return id.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

describe('the packing of ids', () => {
  it('loses nothing of a UUIDv7', () => {
    fc.assert(
      fc.property(anyV7, (id) => {
        const place = placeOf(id)
        expect(unpack(place.window, identityOf(place))).to.equal(id)
        expect(place.idMs).to.equal(Number.parseInt(id.replace('-', '').slice(0, 12), 16))
        expect(place.window).to.equal(windowAt(place.idMs))
        expect(place.shard).to.be.within(0, SHARDS - 1)
      }),
      { numRuns: 5_000 },
    )
  })

  it('packs nothing but the canonical lower-case form of version 7', () => {
    const id = v7()
    const others = [
      v4(),
      id.toUpperCase().replace(/^[0-9-]*$/, 'X'),
      `${id} `,
      id.slice(0, 35),
      id.replaceAll('-', ''),
      id.replace(/-/, '_'),
      `${id.slice(0, 14)}8${id.slice(15)}`,
      `${id.slice(0, 19)}c${id.slice(20)}`,
      `${id.slice(0, 35)}g`,
      `${id.slice(0, 35)}ı`,
      `${id.slice(0, 35)}\u0130`,
      `${String.fromCharCode(id.charCodeAt(0) + 256)}${id.slice(1)}`,
    ]
    for (const other of others) expect(placeOf(other).window, other).to.equal(-1)
    expect(placeOf(id).window).to.be.greaterThan(0)
  })

  it('gives different texts different names', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 90 }), fc.string({ maxLength: 90, unit: 'binary' }), (a, b) => {
        expect(placeOf(a).name === placeOf(b).name).to.equal(a === b)
      }),
    )
    expect(placeOf('\ud800').name).not.to.equal(placeOf('\ud801').name)
    expect(placeOf('x'.repeat(10_000)).name).to.have.length(50)
  })

  it('spreads ids over all shards', () => {
    for (const make of [() => v7(), () => v4(), (i: number) => `order ${i}`, (i: number) => 'y'.repeat(100 + i)]) {
      const counts = new Array<number>(SHARDS).fill(0)
      for (let i = 0; i < 8_000; i++) counts[placeOf(make(i)).shard]!++
      expect(Math.min(...counts)).to.be.greaterThan(350)
      expect(Math.max(...counts)).to.be.lessThan(650)
    }
  })
})

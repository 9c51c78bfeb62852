import { expect } from 'chai'
import { allFaults } from './faults/all.ts'
import { allRows, type Lane, lanesOf } from './mix.ts'

const SEVERAL = 30
const rowOf = (id: string) => allRows.find((row) => row.id === id)!

/** The first turns of a lane, in words. */
function read({ turns }: Lane, howMany = SEVERAL): string[] {
  const said = []
  for (let turn = 0; turn < howMany; turn++) {
    const { fault, afterMs, choices } = turns.next().value
    said.push(`${fault.id}, after ${afterMs} ms: ${choices}`)
  }
  return said
}

describe("the lab's schedule", () => {
  it('is the same for the same seed, and another for another', () => {
    for (const row of allRows) {
      const of = (seed: number) => lanesOf(row, seed).map((lane) => read(lane))
      expect(of(42), row.id).to.deep.equal(of(42))
      expect(of(42), row.id).not.to.deep.equal(of(43))
    }
  })

  it('does not depend on which lane is asked first', () => {
    const [forwards, backwards] = [lanesOf(rowOf('mix'), 42), [...lanesOf(rowOf('mix'), 42)].reverse()]
    const read1 = forwards.map((lane) => read(lane))
    const read2 = backwards.map((lane) => read(lane)).reverse()
    expect(read1).to.deep.equal(read2)
  })

  it('deals every fault of a lane once before any comes again', () => {
    for (const lane of lanesOf(rowOf('mix'), 5)) {
      const ids = read(lane, lane.size).map((line) => line.split(',')[0])
      expect(new Set(ids)).to.have.lengthOf(lane.size)
    }
  })

  it('never has two faults in force that touch the same thing', () => {
    const lanes = lanesOf(rowOf('mix'), 5)
    expect(new Set(lanes.map(({ touches }) => touches))).to.have.lengthOf(lanes.length)
    for (const { turns, touches } of lanes) expect(turns.next().value.fault.touches).to.equal(touches)
  })

  it('has a row for every fault, and the mix has all that need no other servers', () => {
    const inRows = new Set(allRows.filter(({ id }) => !id.startsWith('mix')).flatMap(({ faults }) => faults))
    expect([...inRows]).to.have.members([...allFaults])
    const plain = allFaults.filter(({ needs, cast }) => !needs && !cast)
    expect(rowOf('mix-empty').faults).to.have.members(plain)
    expect(rowOf('mix').faults).to.have.members(plain.filter(({ limit }) => limit !== 'redis-forgets'))
  })

  it('has a mix for each kind of Redis, with all that any may have and what only that kind has', () => {
    const other = allFaults.filter(({ touches, cast, needs }) => touches !== 'redis' && !cast && !needs)
    for (const [id, needs] of [
      ['mix-sentinel', 'sentinel'],
      ['mix-cluster', 'redis-cluster'],
    ] as const) {
      const own = allFaults.filter((fault) => fault.needs === needs)
      expect(own).not.to.be.empty
      expect(rowOf(id).faults).to.have.members([...other, ...own])
      expect(rowOf(id)).to.include({ needs })
    }
  })

  it('says of each mix which faults it does not have', () => {
    for (const row of allRows.filter(({ id }) => id.startsWith('mix'))) {
      const had = row.faults.map(({ id }) => id)
      expect([...had, ...row.leftOut!]).to.have.members(allFaults.map(({ id }) => id))
    }
    expect(rowOf('mix').leftOut).to.include.members(['redis-empty', 'sentinel-failover', 'cluster-empty'])
    expect(rowOf('kill-all')).not.to.have.property('leftOut')
  })

  it('gives each row and each fault a name of its own', () => {
    for (const named of [allRows, allFaults]) {
      expect(new Set(named.map(({ id }) => id))).to.have.lengthOf(named.length)
      expect(new Set(named.map(({ name }) => name))).to.have.lengthOf(named.length)
    }
  })
})

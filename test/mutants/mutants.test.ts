// Faults made by hand are worth nothing once the code they were made for is gone: this says so in every run of the tests, at once.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { allRows } from '../lab/mix.ts'
import { mutants } from './all.ts'
import { ROOT } from './copy.ts'
import { SIGHTS, seenOf } from './in-lab.ts'
import { faulty, type Mutant, mutated } from './mutant.ts'

const [some] = mutants as [Mutant]

describe('the mutants', () => {
  it('fit the code as it is, each text exactly once', async () => {
    for (const mutant of mutants) await faulty(ROOT, mutant)
  })

  it('have names of their own, and tests that are there', () => {
    expect(new Set(mutants.map(({ name }) => name)).size).to.equal(mutants.length)
    for (const { name, tests } of mutants)
      for (const file of tests.files) expect(existsSync(join(ROOT, file)), `${name}: ${file}`).to.equal(true)
  })

  it('are seen by rows that the lab has', () => {
    const seen = seenOf(mutants)
    expect(seen.map(({ mutant }) => mutant.name)).to.have.members(Object.keys(SIGHTS))
    for (const { sight } of seen) expect(allRows.map(({ id }) => id)).to.include(sight.row)
  })

  it('say which one does not fit, where, and what it looks for', () => {
    const mutant = { ...some, from: 'a', to: 'b' }
    expect(mutated('xax', mutant)).to.equal('xbx')
    for (const [source, times] of [
      ['xyz', 0],
      ['aa', 2],
    ] as const)
      expect(() => mutated(source, mutant)).to.throw(
        `"${some.name}": expected its text exactly once in ${some.file}, found it ${times} times`,
      )
  })
})

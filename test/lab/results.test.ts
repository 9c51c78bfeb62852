import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect } from 'chai'
import { inPlace, type Results, writeResults } from './results.ts'
import type { Played } from './table.ts'

const machine = { cpu: 'a cpu', cores: 2, memoryGib: 8, system: 'an os', load: 0 }
const about = { seed: 7, at: '2026-01-02', seconds: 9, load: 'little', machine, versions: { rabbitmq: '3.10.8' } }

function row(id: string, lost = 0): Played {
  const zero = { doubled: 0, repeated: 0, zombies: 0, outOfOrder: 0, phantom: 0, left: 0, deadLetters: 0 }
  const attempts = { attempts: 0, retried: 0, reordered: 0 }
  const met = {
    putOff: 0,
    takenOver: 0,
    refused: 0,
    unmoored: 0,
    unknown: { told: 0, withdrawn: 0, arrived: 0 },
    neverSent: 0,
  }
  const verdict = { messages: 5, lost, ...zero, ...attempts, ...met, longestGapMs: 1, evidence: [] }
  return { id, name: `fault ${id}`, limits: [], injected: 1, seconds: 9, verdict }
}

describe("the lab's results", () => {
  let folder: URL

  beforeEach(async () => {
    folder = pathToFileURL(`${await mkdtemp(join(tmpdir(), 'surehop-lab-results-'))}/`)
  })

  afterEach(() => rm(folder, { recursive: true }))

  const again = (...rows: readonly Played[]): Results => ({ rows, about: { ...about, seed: 8, at: '2026-01-03' } })

  it('put a row that was played by itself in its place, and say so beside what it had broken', async () => {
    await writeResults({ rows: [row('a', 2), row('b')], about }, folder)
    const { rows, about: whole } = await inPlace(again(row('a')), folder)
    expect(rows).to.deep.equal([row('a'), row('b')])
    expect(whole.seed).to.equal(7)
    await writeResults({ rows, about: whole }, folder)
    const text = await readFile(new URL('rabbitmq-3.10.md', folder), 'utf8')
    expect(text).to.contain('`a` was played again by itself (seed 8, 2026-01-03). Before: lost 2.')
    expect(text).to.contain('All rows kept their promises. Seed 7')
  })

  it('remember every time a row was played again', async () => {
    await writeResults({ rows: [row('a', 2)], about }, folder)
    await writeResults(await inPlace(again(row('a', 1)), folder), folder)
    const { about: whole } = await inPlace(again(row('a')), folder)
    expect(whole.again?.map(({ before }) => before)).to.deep.equal([['lost 2'], ['lost 1']])
  })

  it('take no row without a whole run that has it', async () => {
    const refusal = async () => String(await inPlace(again(row('c')), folder).catch((error: unknown) => error))
    expect(await refusal()).to.match(/no table of rabbitmq-3.10 yet: play all rows first/)
    await writeResults({ rows: [row('a')], about }, folder)
    expect(await refusal()).to.match(/has no row "c": play all rows/)
  })
})

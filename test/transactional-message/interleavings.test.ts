// Every order of the steps of a committer, two instances that check back, and an operator; with a fault at any step.

import { expect } from 'chai'
import { type Story, World } from './world.ts'

/** Visits every world that can be reached; answers the ways to those where a promise is broken, and how many ended. */
async function explore(
  story: Story,
): Promise<{ readonly broken: string[]; readonly worlds: number; readonly ends: number }> {
  const known = new Set<string>()
  const open: string[][] = [[]]
  const broken: string[] = []
  let ends = 0
  for (let path = open.pop(); path && broken.length === 0; path = open.pop()) {
    const world = new World(story)
    await new Promise((resolve) => setImmediate(resolve))
    for (const choice of path) await world.choose(choice)
    if (known.has(world.key)) continue
    known.add(world.key)
    const { choices } = world
    for (const choice of choices) open.push([...path, choice])
    if (world.broken.length === 0 && choices.some((choice) => !['kill', 'lose', 'forget'].includes(choice))) continue
    ends++
    for (const what of await world.end()) broken.push(`${what}, after ${path.join(' ')}`)
  }
  return { broken, worlds: known.size, ends }
}

const stories: Record<string, Story> = {
  'work done, a true check': { work: 'done', check: 'true', faults: ['kill'] },
  'work done, an instance loses its channel and works on': { work: 'done', check: 'true', faults: ['lose'] },
  'work done, the store forgets': { work: 'done', check: 'true', faults: ['forget'] },
  'work done, a reply of the store is lost': { work: 'done', check: 'true', faults: ['no-reply'] },
  'committed from elsewhere, killed': { work: 'elsewhere', check: 'true', faults: ['kill'] },
  'committed from elsewhere, the store forgets': { work: 'elsewhere', check: 'true', faults: ['forget'] },
  'committed from elsewhere, a reply is lost': { work: 'elsewhere', check: 'true', faults: ['no-reply'] },
  'work that fails': { work: 'fails', check: 'true', faults: ['kill', 'no-reply'] },
  'work that fails, the store forgets': { work: 'fails', check: 'true', faults: ['forget'] },
  'a check that says rollback too early': { work: 'done', check: 'hasty', faults: ['kill'] },
  'a check that says rollback too early, and a lost channel': { work: 'elsewhere', check: 'hasty', faults: ['lose'] },
  'an operator who says commit': { work: 'done', check: 'true', operator: 'commit', faults: ['kill'] },
  'an operator who says rollback': { work: 'done', check: 'true', operator: 'rollback', faults: ['kill'] },
  'an operator who says rollback, committed from elsewhere': {
    work: 'elsewhere',
    check: 'hasty',
    operator: 'rollback',
    faults: [],
  },
}

describe('every order of committer, instances that check back, operator and faults', () => {
  for (const [name, story] of Object.entries(stories))
    it(`keeps the promises: ${name}`, async function () {
      this.timeout(120_000)
      const { broken, worlds, ends } = await explore(story)
      expect(broken).to.deep.equal([])
      expect(worlds).to.be.greaterThan(500)
      expect(ends).to.be.greaterThan(10)
    })
})

import { expect } from 'chai'
import { startChild } from '../support/child.ts'
import { allRows } from './mix.ts'
import { SHORT_LEAST_ROWS, SHORT_ROWS } from './sizes.ts'

const RUN = new URL('./run.ts', import.meta.url)

/** What the command printed, and its exit code. */
async function lab(...args: string[]) {
  await using child = startChild(RUN, { args })
  const { code } = await child.ended
  return { code, output: child.output }
}

describe('the command of the lab', function () {
  this.timeout(60_000)

  it('names every row', async () => {
    const { code, output } = await lab('--list')
    expect(code).to.equal(0)
    expect(output.trim().split('\n')).to.have.lengthOf(allRows.length)
  })

  it('starts nothing on wrong usage, and says what is wrong', async () => {
    const { code, output } = await lab('--only', 'kill-nobody')
    expect(code).to.equal(2)
    expect(output).to.contain('there is no row "kill-nobody"')
    expect(await lab('--seed', '-1')).to.deep.include({ code: 2 })
  })

  it('does not write a short run into the table', async () => {
    expect(await lab('--write', '--short')).to.deep.include({ code: 2 })
  })

  it('knows the rows it plays in short', () => {
    expect(allRows.map(({ id }) => id)).to.include.members([...SHORT_ROWS])
    expect(SHORT_LEAST_ROWS).to.be.within(2, SHORT_ROWS.length)
  })
})

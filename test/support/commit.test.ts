import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect } from 'chai'
import { commitOf } from './commit.ts'

describe('the commit that a table names', () => {
  let folder: string
  const commit = (at = folder) => commitOf(pathToFileURL(`${at}/`))
  const git = (...args: string[]) => {
    const settings = ['-c', 'user.name=a', '-c', 'user.email=a@b.test', '-c', 'commit.gpgsign=false']
    execFileSync('git', [...settings, ...args], { cwd: folder, stdio: 'ignore' })
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'surehop-versions-'))
  })

  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  it('is nothing where there is no repository, or another one around', function () {
    expect(commit()).to.equal(undefined)
    try {
      git('init')
    } catch {
      this.skip()
    }
    mkdirSync(join(folder, 'inner'))
    expect(commit(join(folder, 'inner'))).to.equal(undefined)
  })

  it('says whether the code was changed since, and does not count what a run wrote itself', function () {
    try {
      git('init')
    } catch {
      this.skip()
    }
    writeFileSync(join(folder, 'code.ts'), 'one')
    git('add', '.')
    git('commit', '-m', 'one')
    expect(commit()).to.match(/^[0-9a-f]{7,}$/)
    mkdirSync(join(folder, 'test/lab/results'), { recursive: true })
    writeFileSync(join(folder, 'test/lab/results/rabbitmq-3.10.md'), 'a table')
    expect(commit()).to.match(/^[0-9a-f]{7,}$/)
    writeFileSync(join(folder, 'code.ts'), 'two')
    expect(commit()).to.match(/^[0-9a-f]{7,} with changes$/)
  })
})

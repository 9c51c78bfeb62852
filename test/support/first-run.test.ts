import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { eventOf, eventually } from './eventually.ts'
import { converse } from './ports.ts'

const FIRST_RUN = fileURLToPath(new URL('./first-run.mjs', import.meta.url))
const TELL_AND_WAIT = 'console.log(process.env.REDIS_URL, process.pid); setInterval(() => {}, 1000)'

describe('first run', () => {
  const started: ChildProcess[] = []

  afterEach(() => {
    for (const child of started.splice(0)) child.kill('SIGKILL')
  })

  function run(...args: readonly string[]): ChildProcess {
    const { REDIS_URL: _redis, AMQP_URL: _amqp, ...env } = process.env
    const child = spawn(process.execPath, [FIRST_RUN, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    started.push(child)
    return child
  }

  async function runTelling(): Promise<{ runner: ChildProcess; port: number; commandPid: number }> {
    const runner = run('--redis', 'node', '-e', TELL_AND_WAIT)
    const lines = createInterface({ input: runner.stdout! })
    const [line] = await eventOf<[string]>(lines, 'line', { withinMs: 15_000 })
    const [url = '', pid] = line.split(' ')
    return { runner, port: Number(new URL(url).port), commandPid: Number(pid) }
  }

  const goneAll = (port: number, pid: number) =>
    eventually(async () => (await silent(port)) && !lives(pid), { what: 'the end of the command and its Redis' })

  it("returns the command's exit code", async () => {
    const [code] = await once(run('node', '-e', 'process.exit(7)'), 'exit')
    expect(code).to.equal(7)
  })

  it('refuses an unknown flag with the usage', async () => {
    const runner = run('--postgres', 'mocha')
    const [words] = await eventOf<[Buffer]>(runner.stderr!, 'data')
    expect(words.toString()).to.match(/^usage: /)
  })

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`leaves nothing running after ${signal}`, async () => {
      const { runner, port, commandPid } = await runTelling()
      runner.kill(signal)
      const [code] = await once(runner, 'exit')
      expect(code).to.be.greaterThan(128)
      await goneAll(port, commandPid)
    })
  }

  it('leaves nothing running after kill -9', async () => {
    const { runner, port, commandPid } = await runTelling()
    runner.kill('SIGKILL')
    await goneAll(port, commandPid)
  })

  it('stops the services when the command dies', async () => {
    const { runner, port, commandPid } = await runTelling()
    process.kill(commandPid, 'SIGKILL')
    const [code] = await once(runner, 'exit')
    expect(code).to.equal(137)
    expect(await silent(port)).to.equal(true)
  })
})

function silent(port: number): Promise<boolean> {
  return converse(port, 'PING\r\n').then(
    () => false,
    () => true,
  )
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

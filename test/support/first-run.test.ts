import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { eventOf, eventually } from './eventually.ts'
import { converse } from './ports.ts'

const FIRST_RUN = fileURLToPath(new URL('./first-run.mjs', import.meta.url))
const TELL_AND_WAIT = 'console.log(process.env.REDIS_URL, process.pid); setInterval(() => {}, 1000)'
const DIRECTLY = ['node', '-e', TELL_AND_WAIT]
// As mocha does, which works in a child of its own when node options are given.
const IN_A_GRANDCHILD = ['sh', '-c', `node -e '${TELL_AND_WAIT}'; exit 0`]

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

  async function runTelling(command = DIRECTLY): Promise<{ runner: ChildProcess; port: number; commandPid: number }> {
    const runner = run('--redis', ...command)
    const lines = createInterface({ input: runner.stdout! })
    const [line] = await eventOf<[string]>(lines, 'line', { withinMs: 15_000 })
    const [url = '', pid] = line.split(' ')
    return { runner, port: Number(new URL(url).port), commandPid: Number(pid) }
  }

  // The command holds the runner's standard output open, hence `close` tells the end of both.
  async function allGone(runner: ChildProcess, port: number): Promise<number> {
    const [code] = await eventOf<[number]>(runner, 'close')
    await eventually(() => silent(port), { what: 'the end of the private Redis' })
    return code
  }

  it("returns the command's exit code", async () => {
    const [code] = await once(run('node', '-e', 'process.exit(7)'), 'exit')
    expect(code).to.equal(7)
  })

  it('refuses an unknown flag with the usage', async () => {
    const runner = run('--mysql', 'mocha')
    const [words] = await eventOf<[Buffer]>(runner.stderr!, 'data')
    expect(words.toString()).to.match(/^usage: /)
  })

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    it(`leaves nothing running after ${signal}`, async () => {
      const { runner, port } = await runTelling()
      runner.kill(signal)
      expect(await allGone(runner, port)).to.be.greaterThan(128)
    })
  }

  it('leaves nothing running after kill -9', async () => {
    const { runner, port } = await runTelling(IN_A_GRANDCHILD)
    runner.kill('SIGKILL')
    await allGone(runner, port)
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

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { widthOf } from '../../bin/text.ts'
import { RedisIdempotencyStore } from '../../lib/index.ts'
import { workQueueTopology } from '../../lib/topology/queues.ts'
import { AMQP_URL, all, Bench, ids, REDIS_URL } from '../dead-letter/support.ts'
import { startProxy } from '../support/tcp-proxy.ts'
import { unique } from '../support/unique.ts'
import { answeredLate, lines, ON_SCREEN, surehop } from './command.ts'

const EVIL = 'evil\u001b[31m\u001b]0;title\u0007\u009b2J\u202egnp.exe\nnext'
const NEVER_SHOWN = /[\p{Cc}\p{Cf}]/u

describe('the command: dead letters', function () {
  this.timeout(180_000)
  let bench: Bench
  let folder: string
  beforeEach(async () => {
    bench = await Bench.open('cli')
    await bench.surehop.declare({ queues: workQueueTopology(bench.queue).queues })
    folder = await mkdtemp(join(tmpdir(), 'surehop-cli-test-'))
  })
  afterEach(async () => {
    await bench.close()
    await rm(folder, { recursive: true })
  })
  const dead = (verb: string, ...args: string[]) => surehop(['dead', verb, bench.queue, ...args])

  it('lists a table no wider than the terminal, and says what is left out', async () => {
    await bench.bury(60, () => ({ message: 'a very long story '.repeat(20) }))
    for (const COLUMNS of ['80', '140']) {
      const { code, stdout, stderr } = await surehop(['dead', 'list', bench.queue], { env: { COLUMNS } })
      expect(code).to.equal(0)
      const rows = stdout.trimEnd().split('\n')
      expect(rows).to.have.length(51)
      expect(Math.max(...rows.map(widthOf))).to.be.at.most(Number(COLUMNS))
      expect(rows[1]).to.contain('m-0').and.to.contain('TimeoutError').and.to.contain('…')
      expect(stderr).to.contain('The first 50, of 60 letters')
    }
  })

  it('writes NDJSON for pipes, everything and nothing else', async () => {
    await bench.bury(60)
    const { code, stdout, stderr } = await dead('list', '--json')
    expect(code).to.equal(0)
    expect(stderr).to.equal('')
    const letters = lines(stdout)
    expect(letters).to.have.length(60)
    expect(letters[0]).to.include({ id: 'm-0', errorType: 'TimeoutError', deadAt: '2025-06-30T12:00:00.000Z' })
  })

  it('lets nothing in a message act on the terminal', async () => {
    bench.put(bench.dead, Buffer.from(EVIL), { messageId: EVIL, type: EVIL, appId: EVIL, headers: { [EVIL]: EVIL } })
    await bench.bury(1, () => ({ id: 'm-1', message: EVIL, error: EVIL, reason: EVIL, body: { text: EVIL } }))
    const outputs = [
      await dead('list'),
      await dead('list', '--json'),
      await dead('groups'),
      await dead('show', 'm-1'),
      await dead('show', EVIL),
      await dead('show', EVIL, '--json'),
      await dead('replay', '--dry-run'),
      await dead('discard', '--dry-run'),
      await dead('show', 'm-1\u001b[2J'),
    ]
    for (const { stdout, stderr } of outputs) {
      expect(stdout.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
      expect(stderr.replaceAll('\n', '')).not.to.match(NEVER_SHOWN)
    }
    expect(lines(outputs[1]!.stdout)[0]).to.include({ id: EVIL })
  })

  it('colours for a terminal or when forced, and never with NO_COLOR', async () => {
    await bench.bury(1)
    const list = ['dead', 'list', bench.queue]
    expect((await surehop(list)).stdout).not.to.contain('\u001b[')
    expect((await surehop(list, { env: { FORCE_COLOR: '1' } })).stdout).to.contain('\u001b[31m')
    expect((await surehop(list, { env: { FORCE_COLOR: '1', NO_COLOR: '1' } })).stdout).not.to.contain('\u001b[')
  })

  it('shows a letter with its story, or just its bytes', async () => {
    await bench.bury(1, () => ({ body: { order: 7 } }))
    const { code, stdout } = await dead('show', 'm-0')
    expect(code).to.equal(0)
    expect(stdout)
      .to.match(/error +TimeoutError: no answer/)
      .and.to.match(/"order": 7/)
      .and.to.contain('at reserve (stock.ts:10:5)')
    expect((await dead('show', 'm-0', '--raw')).stdout).to.equal('{"order":7}')
    expect((await dead('show', 'nobody')).code).to.equal(1)
  })

  it('says what it would do and refuses to do it unasked where nobody can answer', async () => {
    await bench.bury(3)
    for (const verb of ['replay', 'discard']) {
      const { code, stderr } = await dead(verb)
      expect(code).to.equal(2)
      expect(stderr)
        .to.match(/Would (replay|discard) .*3 letters/)
        .and.to.contain('say --yes')
    }
    expect(await bench.count()).to.equal(3)
    const dry = await dead('replay', '--dry-run', '--limit', '2')
    expect(dry.code).to.equal(0)
    expect(dry.stdout.trim().split('\n')).to.deep.equal([
      `would replay  m-0 order.placed → ${bench.queue}, generation 1`,
      `would replay  m-1 order.placed → ${bench.queue}, generation 1`,
    ])
    expect(await bench.count()).to.equal(3)
  })

  it('replays what is chosen, and skips what was completed', async () => {
    const store = new RedisIdempotencyStore({ url: REDIS_URL })
    const consumer = await bench.consume(() => {}, { idempotency: store })
    await bench.bury(3, (i) => ({ type: i === 2 ? 'payment.made' : 'order.placed' }))
    const where = ['--where', 'type=order.*', '--yes', '--rate', 'none']
    const first = await dead('replay', ...where)
    expect(first.stderr).to.contain('Replayed 2 letters, 2 completed.')
    expect(first.code).to.equal(0)
    await bench.bury(1)
    const again = await dead('replay', '--dry-run')
    expect(again.stdout).to.match(/would skip {4}m-0 order\.placed: already completed at 20/)
    const last = await dead('replay', '--id', 'm-0', '--yes')
    expect(last.code).to.equal(1)
    expect(last.stderr).to.contain('would skip 1')
    const rest = await dead('replay', '--yes', '--rate', 'none')
    expect(rest.stdout).to.match(/^skipped {7}m-0 order\.placed: already completed at 20/)
    expect(rest.stderr).to.contain('Replayed 1 letter, 1 completed, 1 skipped.')
    await consumer.close()
    await store.close()
  })

  it('stops when letters fail again, with exit code 1', async () => {
    const store = new RedisIdempotencyStore({ url: REDIS_URL })
    const consumer = await bench.consume(
      () => {
        throw new Error('still broken')
      },
      { idempotency: store },
    )
    await bench.bury(10)
    const { code, stderr, stdout } = await dead('replay', '--yes', '--json')
    expect(code).to.equal(1)
    expect(stderr).to.contain('Replayed 1 letter, 1 failed again. Stopped: too many fail again')
    expect(lines(stdout).at(-1)?.['summary']).to.include({ stopped: 'failing', replayed: 1 })
    await bench.holds(10)
    await consumer.close()
    await store.close()
  })

  it('finishes the letters at hand when interrupted, says what was done, and ends with 130', async () => {
    await bench.bury(100)
    const { code, stderr } = await surehop(
      ['dead', 'replay', bench.queue, '--yes', '--no-watch', '--rate', '20/s', '--json'],
      {
        onStart: (child) => child.stdout!.once('data', () => child.kill('SIGINT')),
      },
    )
    expect(code).to.equal(130)
    const [, done] = /Replayed (\d+) letter.*Interrupted: the rest is untouched/.exec(stderr) ?? []
    expect(Number(done)).to.be.within(1, 99)
    await bench.holds(100 - Number(done))
    await bench.holds(Number(done), bench.queue)
  })

  it('discards and restores', async () => {
    await bench.bury(3)
    expect(await dead('discard', '--id', 'm-1', '--yes')).to.include({ code: 0 })
    expect((await dead('list', '--archive', '--json')).stdout).to.contain('"id":"m-1"')
    expect((await dead('restore', '--yes')).stderr).to.contain('Restored 1 letter.')
    expect(await ids(bench.letters().list())).to.have.members(['m-0', 'm-1', 'm-2'])
  })

  it('says what an edit did with copies of the letter, and which others with its id are left', async () => {
    await bench.bury(2, () => ({ id: 'm-0', body: { i: 0 } }))
    const copy = await dead('edit', 'm-0', '--set', 'i=7', '--yes')
    expect(copy.stderr).to.contain('The original is in the archive; it replaces a copy of that, too. Send it:')
    await bench.bury(1, () => ({ id: 'm-0', body: { i: 1 } }))
    const other = await dead('edit', 'm-0', '--set', 'i=8', '--yes', '--json')
    expect(other.stderr).to.contain('1 other letter with this id has another generation or message.')
    expect(JSON.parse(other.stdout)).to.deep.equal({
      id: 'm-0',
      generation: 2,
      editedFrom: 'm-0#1',
      replaced: 1,
      remaining: 1,
    })
  })

  it('says that the original may be left, and how to take it away, where the connection is lost in an edit', async () => {
    await bench.bury(1, () => ({ body: { i: 0 } }))
    const proxy = await startProxy(AMQP_URL)
    let cut = false
    proxy.on('data', (way, bytes) => {
      if (way !== 'to-server' || cut || !bytes.includes('{"i":71}')) return
      cut = true
      proxy.cut()
    })
    const { code, stderr } = await surehop(['dead', 'edit', bench.queue, 'm-0', '--set', 'i=71', '--yes'], {
      env: { AMQP_URL: proxy.url },
    })
    await proxy.close()
    expect(code, stderr).to.equal(1)
    const [, way = ''] = /the connection was lost .*: surehop (dead discard .*)\n$/.exec(stderr) ?? []
    expect((await surehop([...way.split(' '), '--yes'])).code, stderr).to.equal(0)
    expect((await all(bench.letters().list())).map(({ generation }) => generation))
      .to.include(1)
      .and.not.to.include(0)
  })

  it('warns before an original is sent again together with its edited letter, which an edit that was killed leaves', async () => {
    await bench.bury(2, (i) => ({ id: 'm-0', generation: i }))
    await bench.bury(1, () => ({ id: 'm-1' }))
    const both = await dead('replay', '--dry-run')
    expect(both.stderr).to.contain(
      `Take the older away: surehop dead discard ${bench.queue} --id m-0 --where generation=0`,
    )
    expect((await dead('replay', '--dry-run', '--where', 'generation=0')).stderr).not.to.contain('newer generation')
  })

  it('edits by --set, --file and an editor, shows the difference, and leaves no file behind', async () => {
    await bench.bury(1, () => ({ body: { country: 'XX', lines: [{ sku: 'A' }] } }))
    const set = await dead('edit', 'm-0', '--set', 'country=DE', '--set', 'lines.0.quantity=2', '--yes')
    expect(set.code, set.stderr).to.equal(0)
    expect(set.stderr).to.contain('-  "country": "XX"').and.to.contain('+  "country": "DE"')
    const body = async () => (await bench.letters().show('m-0')).map((letter) => letter.body.toString())
    expect(await body()).to.deep.equal(['{"country":"DE","lines":[{"sku":"A","quantity":2}]}'])
    const file = join(folder, 'new.json')
    await writeFile(file, '{ "raw": 1 }')
    expect((await dead('edit', 'm-0', '--file', file, '--yes')).code).to.equal(0)
    expect(await body()).to.deep.equal(['{ "raw": 1 }'])
    const seen = join(folder, 'seen')
    const EDITOR = `sh -c 'stat -c "%a %n" "$0" > ${seen}; sed -i s/1/2/ "$0"'`
    const edited = await surehop(['dead', 'edit', bench.queue, 'm-0', '--yes'], { env: { EDITOR, VISUAL: '' } })
    expect(edited.code, edited.stderr).to.equal(0)
    expect(await body()).to.deep.equal(['{"raw":2}'])
    const [mode, path = ''] = (await readFile(seen, 'utf8')).trim().split(' ')
    expect(mode).to.equal('600')
    expect(await stat(path).catch((e: NodeJS.ErrnoException) => e.code)).to.equal('ENOENT')
    for (const part of ['raw.x=1', 'account=12345678901234567890', 'a={"b":[1e400]}']) {
      const bad = await dead('edit', 'm-0', '--set', part, '--yes')
      expect(bad, part).to.include({ code: 2 })
    }
    expect(await body()).to.deep.equal(['{"raw":2}'])
  })

  it('exports to a file nobody else can read, imports it, and names the line of a mistake', async () => {
    await bench.bury(5)
    const file = join(folder, 'letters.ndjson')
    expect((await dead('export', '--out', file)).stderr).to.contain('Exported 5 letters.')
    expect((await stat(file)).mode & 0o777).to.equal(0o600)
    expect((await dead('export', '--out', file)).code).to.equal(2)
    await bench.channel.purgeQueue(bench.dead)
    expect((await dead('import', file)).stderr).to.contain('Imported 5 letters.')
    expect(await ids(bench.letters().list())).to.have.length(5)
    await writeFile(file, `${await readFile(file, 'utf8')}oops\n`)
    const bad = await dead('import', file)
    expect(bad.code).to.equal(1)
    expect(bad.stderr).to.contain('line 6: no JSON')
    expect(await all(bench.letters().list()), 'nothing of a bad file is taken').to.have.length(5)
    const exported = await dead('export')
    const piped = await surehop(['dead', 'import', bench.queue, '-'], { stdin: exported.stdout })
    expect(piped.stderr).to.contain('Imported 5 letters.')
  })

  it('ends quietly when its reader goes away', async () => {
    await bench.bury(3_000)
    const { code, stderr } = await surehop(['dead', 'list', bench.queue, '--json'], {
      onStart: (child) => child.stdout!.once('data', () => child.stdout!.destroy()),
    })
    expect(stderr).to.equal('')
    expect(code).to.equal(0)
    await bench.holds(3_000)
  })
})

describe('the command: dead letters that change under an operator', function () {
  this.timeout(180_000)
  let bench: Bench
  let folder: string
  beforeEach(async () => {
    bench = await Bench.open('cli-late')
    await bench.surehop.declare({ queues: workQueueTopology(bench.queue).queues })
    folder = await mkdtemp(join(tmpdir(), 'surehop-cli-late-'))
  })
  afterEach(async () => {
    await bench.close()
    await rm(folder, { recursive: true })
  })

  for (const [verb, flags] of [
    ['discard', []],
    ['replay', ['--no-watch']],
  ] as const)
    it(`${verb} takes those that were asked about and no others, when the answer comes late`, async () => {
      await bench.bury(3)
      const { code, stderr } = await answeredLate(['dead', verb, bench.queue, '--limit', '2', ...flags], async () => {
        await bench.letters().discard({ ids: ['m-0'] })
        await bench.bury(2, (i) => ({ id: `late-${i}` }))
      })
      expect(code, stderr).to.equal(0)
      expect(stderr)
        .to.match(/2 letters( again)?\?/)
        .and.to.contain('ed 1 letter.')
      expect(await ids(bench.letters().list())).to.have.members(['m-2', 'late-0', 'late-1'])
    })

  it('ends also where a terminal shows its progress and nothing can be moved', async () => {
    await bench.bury(2)
    await bench.channel.deleteQueue(`${bench.queue}.archive`)
    await bench.channel.assertQueue(`${bench.queue}.archive`, { durable: true })
    const args = ['dead', 'discard', bench.queue, '--yes']
    let timer: NodeJS.Timeout | undefined
    const onStart = (child: { kill(signal: 'SIGKILL'): boolean }) => {
      timer = setTimeout(() => child.kill('SIGKILL'), 30_000)
    }
    const { code, stderr } = await surehop(args, { env: ON_SCREEN, onStart })
    clearTimeout(timer)
    expect(code, stderr).to.equal(1)
    expect(await bench.count()).to.equal(2)
  })

  it('edits only what was shown: not a letter that somebody else edited or sent again meanwhile', async () => {
    await bench.bury(2)
    const edited = await answeredLate(['dead', 'edit', bench.queue, 'm-0', '--set', 'i=7'], () =>
      bench.letters().edit('m-0', { body: { i: 5 } }),
    )
    expect(edited.code).to.equal(1)
    expect(edited.stderr).to.contain('of generation 1').and.to.contain('nothing was changed')
    const [letter] = await bench.letters().show('m-0')
    expect(letter!.body.toString()).to.equal('{"i":5}')
    const gone = await answeredLate(['dead', 'edit', bench.queue, 'm-1', '--set', 'i=7'], () =>
      bench.letters().discard({ ids: ['m-1'] }),
    )
    expect(gone.code).to.equal(1)
    expect(await ids(bench.letters().list())).to.deep.equal(['m-0'])
  })

  it('keeps its connection while an editor is open', async () => {
    await bench.bury(1)
    const proxy = await startProxy(AMQP_URL)
    const [open, beat] = [join(folder, 'open'), join(folder, 'beat')]
    proxy.on('data', (direction) => {
      if (direction === 'to-server')
        void access(open).then(
          () => writeFile(beat, ''),
          () => {},
        )
    })
    const EDITOR = `touch ${open}; for i in $(seq 60); do [ -e ${beat} ] && break; sleep 0.5; done; [ -e ${beat} ] && sed -i s/0/7/`
    const env = { AMQP_URL: proxy.url, EDITOR, VISUAL: '' }
    const { code, stderr } = await surehop(['dead', 'edit', bench.queue, 'm-0', '--yes'], { env })
    await proxy.close()
    expect(code, stderr).to.equal(0)
  })

  it('leaves Ctrl-C to the editor, and changes nothing but keeps the text when it is told to end meanwhile', async () => {
    await bench.bury(1)
    for (const [signal, code, body] of [
      ['TERM', 130, '{"i":0}'],
      ['INT', 0, '{"i":7}'],
    ] as const) {
      const EDITOR = `kill -${signal} $PPID; kill -${signal} $PPID; sleep 1; sed -i s/0/7/`
      const env = { EDITOR, VISUAL: '', TMPDIR: folder }
      const ran = await surehop(['dead', 'edit', bench.queue, 'm-0', '--yes'], { env })
      const kept = (await readdir(folder)).filter((name) => name.startsWith('surehop-edit-'))
      expect(kept, ran.stderr).to.have.length(signal === 'TERM' ? 1 : 0)
      for (const name of kept) await rm(join(folder, name), { recursive: true })
      expect(ran.code, ran.stderr).to.equal(code)
      expect((await bench.letters().show('m-0')).map((letter) => letter.body.toString())).to.deep.equal([body])
    }
  })

  it('keeps what was edited where it came to nothing, says where, and keeps nothing that was not changed', async () => {
    await bench.bury(1)
    const run = async (EDITOR: string) => {
      const { code, stderr } = await surehop(['dead', 'edit', bench.queue, 'm-0', '--yes'], {
        env: { EDITOR, VISUAL: '' },
      })
      expect(code, stderr).to.equal(1)
      return /What was edited is kept in (\S+): it holds the message/.exec(stderr)?.[1]
    }
    expect(await run(`sh -c 'exit 7'`)).to.equal(undefined)
    const kept = await run(`sh -c 'sed -i s/0/7/ "$0"; exit 7'`)
    expect(await readFile(join(kept!, 'body.json'), 'utf8')).to.contain('7')
    await rm(kept!, { recursive: true })
  })

  it('names an edited letter without an id as it can be found', async () => {
    await bench.bury(1, () => ({ id: undefined, headers: { ratio: 0.5, nested: { whole: 3 } } }))
    const [letter] = await all(bench.letters().list())
    const { stdout } = await surehop(['dead', 'edit', bench.queue, letter!.id, '--set', 'i=7', '--yes', '--json'])
    expect(lines(stdout).map(({ id }) => id)).to.deep.equal(await ids(bench.letters().list()))
  })

  it('does not take an export for done that did not fit on the disk', async () => {
    await bench.bury(3)
    const out = join(folder, 'letters.ndjson')
    const limited = `ulimit -f 1; exec "$0" "$@"`
    const cli = fileURLToPath(new URL('../../bin/cli.ts', import.meta.url))
    const { NODE_OPTIONS: _, ...env } = process.env
    const args = ['--import', import.meta.resolve('tsx'), cli, 'dead', 'export', bench.queue, '--out', out]
    const child = spawn('bash', ['-c', limited, process.execPath, ...args], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const [code] = (await once(child, 'close')) as [number]
    expect(stderr).to.match(/^surehop: EFBIG[^\n]*\n$/)
    expect(code).to.equal(1)
  })
})

describe('the command: mistakes and connections', function () {
  this.timeout(180_000)
  const PASSWORD = 'tiger-secret'

  it('guesses at a misspelt command or option, exit code 2', async () => {
    const command = await surehop(['dead', 'lst', 'orders'])
    expect(command).to.include({ code: 2 })
    expect(command.stderr).to.contain('Did you mean list?')
    const option = await surehop(['dead', 'replay', 'orders', '--dry-runn'])
    expect(option).to.include({ code: 2 })
    expect(option.stderr).to.contain('Did you mean --dry-run?')
    expect(await surehop(['dead', 'replay', 'orders', '--rate', 'fast'])).to.include({ code: 2 })
    expect(await surehop(['dead', 'list', 'orders'], { env: { AMQP_URL: '' } })).to.include({ code: 2 })
    expect((await surehop(['--version'])).stdout).to.match(/^\d+\.\d+\.\d+/)
    const help = await surehop(['dead', 'replay', '--help'])
    expect(help).to.include({ code: 0 })
    expect(help.stdout).to.contain('Examples:').and.to.contain('operators')
  })

  it('shows no password in a mistake, and refuses what would mean more than was said', async () => {
    const url = `amqp://scott:${PASSWORD}@127.0.0.1:1/`
    const mistakes = [
      ['dead', 'list', 'orders', `--ampq=${url}`],
      ['dead', 'list', 'orders', `--limit=${url}`],
      ['dead', url],
      [url],
      ['dead', 'discard', 'orders', '--where', 'type=a', '--where', 'error=b', '--yes'],
      ['dead', 'replay', 'orders', '--to', 'orders.dead', '--yes'],
      ['dead', 'edit', 'orders', 'm-0', '--file', 'a', '--set', 'b=1'],
    ]
    for (const args of mistakes) {
      const ran = await surehop(args)
      expect(ran.code, ran.stderr).to.equal(2)
      expect(ran.stdout + ran.stderr).not.to.contain(PASSWORD)
    }
  })

  it('says whole how an address is to be written, with nothing of it taken for a password', async () => {
    const broker = await surehop(['dead', 'list', 'orders'], { env: { AMQP_URL: 'localhost' } })
    expect(broker).to.include({ code: 2 })
    expect(broker.stderr).to.contain('/ # ? % @ of a password percent-encoded')
    expect(broker.stderr).to.contain('like amqp://user:***@host:5672/vhost, got something else (not shown')
    const database = await surehop(['migrate'], { env: { DATABASE_URL: 'localhost' } })
    expect(database).to.include({ code: 2 })
    expect(database.stderr).to.contain('to be like postgres://user@host:5432/name\n')
  })

  it('points at a mistake in a filter', async () => {
    const { code, stderr } = await surehop(['dead', 'list', unique('any'), '--where', 'error=a annd type=b'])
    expect(code).to.equal(2)
    expect(stderr).to.contain('\n  error=a annd type=b\n          ^\nfields: id, ')
  })

  it('ends with 3 where there is no connection, and never shows a password', async () => {
    for (const url of [
      `amqp://scott:${PASSWORD}@127.0.0.1:1/`,
      (process.env['AMQP_URL'] ?? '').replace(/\/\/.*@/, `//scott:${PASSWORD}@`),
    ]) {
      const ran = await surehop(['dead', 'list', 'orders', '--verbose', '--amqp', url])
      expect(ran.code).to.equal(3)
      expect(ran.stderr).to.contain('scott:***@')
      expect(ran.stdout + ran.stderr).not.to.contain(PASSWORD)
    }
  })

  it('prints the topology without a broker, and examines one', async () => {
    const { stdout } = await surehop(['topology', 'orders', '--json'], { env: { AMQP_URL: '' } })
    expect(lines(stdout).map(({ name }) => name)).to.include.members([
      'orders',
      'orders.dead',
      'orders.archive',
      'surehop.delay.00',
    ])
    const missing = unique('missing')
    const doctor = await surehop(['doctor', missing])
    expect(doctor.code).to.equal(1)
    expect(doctor.stdout)
      .to.match(/ok +broker: RabbitMQ \d/)
      .and.to.match(new RegExp(`WRONG +${missing}: does not exist`))
    expect(await surehop(['doctor'])).to.include({ code: 0 })
  })
})

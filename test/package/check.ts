/**
 * The package as a stranger gets it: built, packed, linted by publint and attw, installed in an empty folder, imported,
 * required, run as a command, and type-checked strictly on TypeScript 7 and 5.9.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const bin = (name: string) => join(ROOT, 'node_modules', '.bin', name)
const compiler = (name: string) => join(ROOT, 'node_modules', name, 'bin', 'tsc')
const folder = mkdtempSync(join(tmpdir(), 'surehop-package-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

function run(what: string, cwd: string, command: string, ...args: string[]): string {
  try {
    const out = execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
    console.log(`ok    ${what}`)
    return out.trim()
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }
    console.error(`FAIL  ${what}\n${stdout ?? ''}${stderr ?? ''}`)
    process.exit(1)
  }
}

const USE = `
import { connect, exponential, MemoryIdempotencyStore, type Message, PublishFailed, RedisIdempotencyStore } from 'surehop'
import { idempotencyStoreContract } from 'surehop/testing'

export async function use(): Promise<void> {
  await using surehop = await connect({ amqp: 'amqp://localhost', service: 'orders' })
  const producer = surehop.producer()
  try {
    const { messageId } = await producer.publish('shop.events', { type: 'order.placed', body: { id: 1 }, key: '1' })
    console.log(messageId.length)
  } catch (error) {
    if (error instanceof PublishFailed && error.outcome === 'returned') console.log(error.code)
  }
  const inbox = new RedisIdempotencyStore('redis://localhost')
  await using consumer = await surehop.consume<{ id: number }>(
    'inventory',
    { idempotency: inbox, retry: { attempts: 3, backoff: exponential({ baseMs: 100 }) } },
    async (message: Message<{ id: number }>, { signal, attempt, publish }) => {
      console.log(message.body.id.toFixed(), signal.aborted, attempt, typeof publish)
    },
  )
  console.log(consumer.running, new MemoryIdempotencyStore() !== undefined)
  console.log(idempotencyStoreContract.length)
}
`

const STRICT = {
  compilerOptions: {
    target: 'ES2022',
    lib: ['ES2022', 'ESNext.Disposable'],
    module: 'NodeNext',
    moduleResolution: 'NodeNext',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: false,
    noEmit: true,
    types: ['node'],
  },
  include: ['*.ts'],
}

run('npm run build', ROOT, 'npm', 'run', '--silent', 'build')
run('npm pack', ROOT, 'npm', 'pack', '--silent', '--pack-destination', folder)
const tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz'))!)
run('publint', ROOT, bin('publint'), 'run', tarball, '--strict')
run('attw (ESM only)', ROOT, bin('attw'), tarball, '--profile', 'esm-only')

writeFileSync(join(folder, 'package.json'), '{"name":"stranger","private":true,"type":"module"}')
writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(STRICT))
writeFileSync(join(folder, 'use.ts'), USE)
const examples = [...readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/^```ts\n(.*?)^```/gms)]
examples.forEach(([, code], i) => {
  writeFileSync(join(folder, `readme-${i + 1}.ts`), `${code}\nexport {}\n`)
})
console.log(`      ${examples.length} examples of the README are type-checked with it`)
run(
  'npm install in an empty folder',
  folder,
  'npm',
  'install',
  '--silent',
  '--no-audit',
  '--no-fund',
  '--prefer-offline',
  tarball,
  '@types/node@20',
  '@types/pg@8',
)
run('import', folder, process.execPath, '-e', "import('surehop').then((m) => { if (!m.connect) process.exit(1) })")
run(
  'require',
  folder,
  process.execPath,
  '-e',
  "if (!require('surehop').connect) process.exit(1)",
  '--input-type=commonjs',
)
run('the surehop command', folder, join(folder, 'node_modules', '.bin', 'surehop'), '--version')
run('strict types on TypeScript 7', folder, process.execPath, compiler('typescript'), '-p', 'tsconfig.json')
run('strict types on TypeScript 5.9', folder, process.execPath, compiler('typescript-5.9'), '-p', 'tsconfig.json')

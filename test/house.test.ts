/** Holds the house to its rules: imports run downward, no cycles, public names documented, README tables equal to the code. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { allFaults } from './lab/faults/all.ts'
import { filled, readme } from './support/readme.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const LIB = join(ROOT, 'lib')

/** From the ground up; a room imports rooms below it, and itself. Files right under lib/ that are not named are ground. */
const FLOORS = [
  ['observability'],
  ['connection', 'sql'],
  ['topology'],
  ['producer'],
  ['consumer'],
  ['idempotency', 'retry'],
  ['dead-letter', 'outbox'],
  ['transactional-message'],
  ['testing', 'consume.ts', 'surehop.ts', 'index.ts'],
]

/** Packages that only some rooms may import. */
const KEPT_IN: Readonly<Record<string, RegExp>> = {
  amqplib: /^(connection|topology|producer|consumer|dead-letter)\//,
  'amqp-connection-manager': /^connection\//,
  ioredis: /^(idempotency|transactional-message)\/redis/,
  pg: /^$/,
}

const files = readdirSync(LIB, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
const source = new Map(files.map((name) => [name, readFileSync(join(LIB, name), 'utf8')]))

function importsOf(name: string): { inner: string[]; packages: string[] } {
  const targets = [...source.get(name)!.matchAll(/^(?:import|export)\b[^'"]*?from '([^']+)'/gms)].map((m) => m[1]!)
  const inner = targets.filter((t) => t.startsWith('.')).map((t) => relative(LIB, join(LIB, dirname(name), t)))
  return { inner, packages: targets.filter((t) => !t.startsWith('.') && !t.startsWith('node:')) }
}

function floorOf(name: string): number {
  const room = name.includes('/') ? name.split('/')[0]! : name
  return FLOORS.findIndex((rooms) => rooms.includes(room))
}

function roomOf(name: string): string {
  return name.includes('/') ? name.split('/')[0]! : name
}

function cycleFrom(name: string, path: readonly string[], done: Set<string>): string[] | undefined {
  if (path.includes(name)) return [...path.slice(path.indexOf(name)), name]
  if (done.has(name)) return undefined
  for (const next of importsOf(name).inner) {
    const cycle = cycleFrom(next, [...path, name], done)
    if (cycle) return cycle
  }
  done.add(name)
  return undefined
}

function membersOf(file: string, name: string): string[] {
  const body = new RegExp(`export interface ${name}\\b[^{]*\\{(.*?)\\n\\}`, 's').exec(source.get(file)!)?.[1] ?? ''
  return [...body.matchAll(/^ {2}readonly (\w+)\??:/gm)].map((m) => m[1]!)
}

/** First column of the README table that follows an HTML comment `<!-- table: NAME -->`. */
function readmeTable(name: string): string[] {
  const table = readme().split(`<!-- table: ${name} -->`)[1]?.trimStart().split('\n\n')[0] ?? ''
  return [...table.matchAll(/^\| `([^`]+)`/gm)].map((m) => m[1]!)
}

/** What stands in the README's columns of proof, in backticks: folders and files of tests, and rows of the lab. */
function proofs(): { readonly tests: readonly string[]; readonly rows: readonly string[] }[] {
  const section = readme().split('\n## Guarantees, and their limits\n')[1]?.split('\n## ')[0] ?? ''
  const promises = section.split('\n').filter((line) => line.startsWith('| ') && !/^\| (Promise|---)/.test(line))
  return promises.map((line) => {
    const [tests = '', rows = ''] = line.split(/(?<!\\)\|/).slice(3)
    const named = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1]!)
    return { tests: named(tests), rows: named(rows) }
  })
}

describe('the house', () => {
  it('has imports that run downward only, never sideways between rooms', () => {
    const wrong = files.flatMap((name) =>
      importsOf(name)
        .inner.filter((target) => roomOf(target) !== roomOf(name) && floorOf(name) >= 0)
        .filter((target) => floorOf(target) >= floorOf(name) && roomOf(name) !== 'index.ts')
        .filter((target) => !(floorOf(name) === FLOORS.length - 1 && floorOf(target) === floorOf(name)))
        .map((target) => `${name} -> ${target}`),
    )
    const ground = files.filter((name) => floorOf(name) < 0)
    const climbing = ground.flatMap((name) =>
      importsOf(name)
        .inner.filter((t) => floorOf(t) > 0)
        .map((t) => `${name} -> ${t}`),
    )
    expect([...wrong, ...climbing]).to.deep.equal([])
  })

  it('has no import cycles', () => {
    const done = new Set<string>()
    expect(files.map((name) => cycleFrom(name, [], done)).filter((cycle) => cycle)).to.deep.equal([])
  })

  it('keeps each client library in its rooms', () => {
    const wrong = files.flatMap((name) =>
      importsOf(name)
        .packages.filter((p) => KEPT_IN[p] && !KEPT_IN[p].test(name))
        .map((p) => `${name} imports ${p}`),
    )
    expect(wrong).to.deep.equal([])
  })

  it('has no barrel but the front doors', () => {
    const barrels = files.filter(
      (name) => /^export (type )?(\*|\{[^}]*\}) from/m.test(source.get(name)!) && !name.endsWith('index.ts'),
    )
    expect(barrels.filter((name) => source.get(name)!.split('\n').length < 15)).to.deep.equal([])
  })

  it('documents every module and every exported declaration', () => {
    const bare = files.flatMap((name) => {
      const lines = source.get(name)!.split('\n')
      const opening = /^(\/\*\*|\/\/)/.test(lines[0]!) ? [] : [`${name}: no opening comment`]
      const undocumented = lines.flatMap((line, i) =>
        /^export (class|interface|abstract class|type \w+ =)/.test(line) && !/\*\/\s*$/.test(lines[i - 1] ?? '')
          ? [`${name}:${i + 1}: ${line}`]
          : [],
      )
      return [...opening, ...undocumented]
    })
    expect(bare).to.deep.equal([])
  })

  it('lists every error code in the README, and no other', () => {
    const codes = [...source.get('errors.ts')!.matchAll(/^ {2}\| '([A-Z_]+)'/gm)].map((m) => m[1]!)
    expect(codes).to.have.length.greaterThan(10)
    expect(readmeTable('errors').sort()).to.deep.equal(codes.sort())
  })

  const tables = [
    ['surehop.ts', 'ConnectOptions'],
    ['producer/producer.ts', 'ProducerOptions'],
    ['consume.ts', 'ConsumeOptions'],
    ['retry/policy.ts', 'RetryOptions'],
    ['outbox/outbox.ts', 'OutboxOptions'],
    ['outbox/relay-options.ts', 'RelayOptions'],
    ['idempotency/postgres.ts', 'PostgresIdempotencyStoreOptions'],
    ['transactional-message/options.ts', 'TransactionalOptions'],
  ] as const
  for (const [file, name] of tables) {
    it(`lists every option of ${name} in the README, and no other`, () => {
      expect(membersOf(file, name)).to.have.length.greaterThan(2)
      expect(readmeTable(name).sort()).to.deep.equal(membersOf(file, name).sort())
    })
  }

  it('lists every event in the README, and no other', () => {
    const names = [...source.get('observability/events.ts')!.matchAll(/^ {2}'([a-z.-]+)': /gm)].map((m) => m[1]!)
    expect(readmeTable('events').sort()).to.deep.equal(names.sort())
  })

  it('names, for every promise of the README, tests that exist and rows of the lab that exist', () => {
    const known = new Set(['mix', ...allFaults.map(({ id }) => id)])
    expect(proofs()).to.have.length.greaterThan(8)
    for (const { tests, rows } of proofs()) {
      expect(tests).to.not.be.empty
      expect(tests.filter((path) => !existsSync(join(ROOT, path)))).to.deep.equal([])
      expect(rows, tests.join()).to.not.be.empty
      expect(rows.filter((row) => !known.has(row))).to.deep.equal([])
    }
  })

  it('shows in the README what the lab and the benchmarks wrote', () => {
    expect(readme()).to.equal(filled(readme()))
  })
})

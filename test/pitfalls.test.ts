/**
 * The known pitfalls of amqplib, amqp-connection-manager, RabbitMQ and Redis clients, each with the tests that hold it down.
 * A row names files whose tests carry the row's tag; the first test below keeps this table true.
 *
 * P1   late ack on a new channel                        consumer/losses.test.ts consumer/delivery.test.ts
 * P2   channel error takes the connection down          connection/faults.test.ts
 * P3   channel that died alone never comes back         connection/faults.test.ts producer/faults.test.ts
 * P4   synchronous throw in publish                     producer/outcomes.test.ts producer/encode.test.ts
 * P5   unlimited offline buffer                         producer/outcomes.test.ts producer/faults.test.ts
 * P6   timeout although the broker has the message      producer/faults.test.ts
 * P7   close() rejects what the broker holds            producer/outcomes.test.ts
 * P8   unroutable resolves                              producer/outcomes.test.ts producer/confirms.test.ts
 * P9   back-pressure flag read as a result              producer/faults.test.ts
 * P10  set-up in parallel                               topology/declarer.test.ts
 * P11  set-up error without a listener                  connection/faults.test.ts
 * P12  no handshake timeout                             connection/connect.test.ts
 * P13  consume() rejected yet registered                consumer/losses.test.ts
 * P14  server cancel without an event                   consumer/losses.test.ts
 * P15  throwing handler closes the channel              consumer/retries.test.ts consumer/active.test.ts
 * P16  made-up answers while offline                    pitfalls.test.ts
 * P17  fixed reconnect pause, heartbeat                 connection/connect.test.ts connection/faults.test.ts
 * P18  exit is delayed                                  connection/lifecycle.test.ts
 * P19  foreign types in our declarations                pitfalls.test.ts
 * P20  head-of-line blocking of per-message TTL         topology/delay.test.ts
 * P21  endless requeue, default limit                   topology/topology.test.ts
 * P22  looking uses up dead letters                     topology/topology.test.ts
 * P23  dead-lettering without confirms                  topology/topology.test.ts
 * P24  ack timeout                                      consumer/losses.test.ts
 * P25  nack cannot carry the error                      consumer/consume.test.ts
 * P26  false duplicate, endless wait of the Redis client  idempotency/redis-outage.test.ts
 * P27  "processed" written at the wrong moment          consumer/consume.test.ts
 * P28  recovery option of the client library            connection/connect.test.ts
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'chai'
import { NotConnected } from '../lib/errors.ts'
import { failure, wiring } from './connection/wiring.ts'

const HERE = fileURLToPath(new URL('.', import.meta.url))
const ROOT = fileURLToPath(new URL('..', import.meta.url))

describe('pitfalls', () => {
  const wired = wiring()

  it('each have a test that carries their tag, in the file this table names', () => {
    const table = readFileSync(join(HERE, 'pitfalls.test.ts'), 'utf8').split('*/')[0]!
    const rows = [...table.matchAll(/^ \* (P\d+) +\S.*? {2,}(\S.*)$/gm)]
    expect(rows.map(([, tag]) => tag)).deep.equal(Array.from({ length: 28 }, (_, i) => `P${i + 1}`))
    for (const [, tag, files] of rows)
      for (const file of files!.trim().split(/ +/)) {
        expect(readFileSync(join(HERE, file), 'utf8'), `${tag} in ${file}`).match(new RegExp(`\\b${tag}[,:]`))
      }
  })

  it('P16: what is asked while the broker is away fails with a typed error, never with a made-up answer', async () => {
    const { proxy, surehop } = await wired.behindProxy({ rpcTimeoutMs: 200 })
    const queues = [{ name: 'made-up', arguments: { 'x-queue-type': 'quorum' } }]
    const lost = wired.event('connection.state', ({ from }) => from === 'open')
    await proxy.refuse()
    proxy.cut()
    await lost
    const error = await failure(surehop.declare({ queues }))
    expect(error).instanceOf(NotConnected)
    expect(error.message).contain('Is the broker running')
  })

  it('P19: no declaration we publish mentions amqp-connection-manager', function () {
    this.timeout(90_000)
    const out = mkdtempSync(join(tmpdir(), 'surehop-types-'))
    try {
      const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
      const args = ['-p', 'tsconfig.build.json', '--emitDeclarationOnly', '--outDir', out]
      spawnSync(process.execPath, [compiler, ...args], { cwd: ROOT })
      const declarations = readdirSync(out, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.d.ts'))
      expect(declarations).not.empty
      for (const file of declarations)
        expect(readFileSync(join(out, file), 'utf8'), file).not.contain('connection-manager')
    } finally {
      rmSync(out, { recursive: true })
    }
  })
})

/** `surehop doctor`: is everything there, and set up as it should be? Declares nothing that is not there. */
import { randomUUID } from 'node:crypto'
import type { Command } from 'commander'
import {
  archiveQueueOf,
  deadQueueOf,
  PermissionRefused,
  PublishFailed,
  type Queue,
  ResourceBusy,
  type Surehop,
  TopologyMismatch,
  workQueueTopology,
} from '../../lib/index.ts'
import { sessionCommand } from '../command.ts'
import { type ConnectionFlags, EXIT, type Session } from '../session.ts'
import { plural, redacted, safe } from '../text.ts'

interface Finding {
  readonly ok: boolean
  readonly subject: string
  readonly text: string
}

export function doctorCommand(): Command {
  return sessionCommand<ConnectionFlags, [string[]]>('doctor [queues...]', {
    description: 'check broker, Redis and queues, and say what is wrong',
    examples: ['surehop doctor', 'surehop doctor orders payments --redis redis://localhost'],
    run: doctor,
  })
}

async function doctor(session: Session, flags: ConnectionFlags, queues: readonly string[]): Promise<number> {
  const { output } = session
  let wrong = 0
  const tell = async ({ ok, subject, text }: Finding) => {
    if (!ok) wrong++
    const mark = ok ? output.paint.green('ok   ') : output.paint.red('WRONG')
    if (flags.json) await output.json({ ok, subject, text: redacted(text) })
    else await output.line(`${mark}  ${output.paint.bold(safe(subject))}: ${safe(redacted(text))}`)
  }
  const refused = await publishRefused(session)
  await tell(brokerFinding(session, refused))
  for (const finding of await undeliverableFindings(session)) await tell(finding)
  for (const finding of await storeFindings(session, flags)) await tell(finding)
  for (const queue of queues) for (const finding of await queueFindings(session, queue)) await tell(finding)
  return wrong === 0 ? EXIT.done : EXIT.partly
}

/** A publish that tries the broker is answered in milliseconds, or something is wrong, ms. */
const PROBE_MS = 5_000

/**
 * A broker that is short of memory or disk says so only to those who publish. What is sent here goes to a queue that does not
 * exist, and comes back.
 * @returns why the broker takes nothing now, or undefined
 */
async function publishRefused({ surehop, interrupted }: Session): Promise<string | undefined> {
  const nowhere = `surehop.doctor.${randomUUID()}`
  const options = { deadlineMs: PROBE_MS, signal: interrupted }
  const error: unknown = await surehop
    .producer()
    .send(nowhere, { body: null }, options)
    .catch((failure: unknown) => failure)
  const { healthy, reasons } = surehop.health()
  if (!healthy) return reasons.join('; ')
  const silent = error instanceof PublishFailed && SILENT.includes(error.outcome)
  return silent && !interrupted.aborted ? error.message : undefined
}

/** Outcomes that are no answer of the broker's. */
const SILENT = ['unknown', 'not-sent']

function brokerFinding({ surehop }: Session, refused: string | undefined): Finding {
  const version = surehop.brokerVersion ?? 'of unknown version'
  const known = supported(version)
  const text = `RabbitMQ ${version}${known ? '' : ', expected 3.10 or later'}`
  return { ok: refused === undefined && known, subject: 'broker', text: refused ? `${text}; ${refused}` : text }
}

function supported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 3 || (major === 3 && minor >= 10)
}

/** What a delay could not hand over: its queue or exchange was gone. Nothing is said where there is none, or no delay. */
async function undeliverableFindings({ surehop }: Session): Promise<Finding[]> {
  const subject = deadQueueOf(UNDELIVERABLE)
  const messages = (await surehop.queueStatus(subject))?.messages ?? 0
  if (messages === 0) return []
  const text = `${plural(messages, 'delayed message')} found no queue or exchange to arrive at (see: surehop dead groups ${UNDELIVERABLE})`
  return [{ ok: false, subject, text }]
}

/** The queue that these dead letters are said to belong to. */
const UNDELIVERABLE = 'surehop.undeliverable'

async function storeFindings({ store }: Session, { inbox }: ConnectionFlags): Promise<Finding[]> {
  const subject = inbox === undefined ? 'redis' : 'inbox'
  if (!store) return [{ ok: true, subject, text: 'not asked (no --redis, no REDIS_URL)' }]
  try {
    const warnings = await store.check()
    if (warnings.length === 0) return [{ ok: true, subject, text: 'reachable, and keeps what it is told' }]
    return warnings.map((text) => ({ ok: false, subject, text }))
  } catch (error) {
    return [{ ok: false, subject, text: (error as Error).message }]
  }
}

async function queueFindings({ surehop }: Session, name: string): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const queue of workQueueTopology(name).queues)
    findings.push({ subject: queue.name, ...(await examined(surehop, name, queue).catch(notToBeSeen)) })
  return findings
}

type Told = Omit<Finding, 'subject'>

async function examined(surehop: Surehop, name: string, queue: Queue): Promise<Told> {
  const status = await surehop.queueStatus(queue.name)
  if (!status) return { ok: false, text: 'does not exist; its consumer declares it when it starts' }
  const { mismatch, chosen } = await compare(surehop, queue)
  const idle = queue.name === name && status.consumers === 0
  const consumers = idle ? 'nobody consumes it' : plural(status.consumers, 'consumer')
  const counts = `${plural(status.messages, 'message')}, ${consumers}`
  return {
    ok: mismatch === undefined && !idle,
    text: `${mismatch ?? `arguments as declared${chosen}`}; ${counts}${hint(name, queue.name, status.messages)}`,
  }
}

/** What concerns one queue is told of it, and the others are examined nevertheless. */
function notToBeSeen(error: unknown): Told {
  if (error instanceof PermissionRefused || error instanceof ResourceBusy) return { ok: false, text: error.message }
  throw error
}

function hint(queue: string, name: string, messages: number): string {
  if (messages === 0 || name === queue || name === archiveQueueOf(queue)) return ''
  return name === deadQueueOf(queue) ? ` (see: surehop dead groups ${queue})` : ''
}

/** What a consumer may choose when it first declares its queue; the broker tells one difference at a time. */
const CHOICES = ['x-max-length', 'x-max-length-bytes', 'x-single-active-consumer']

async function compare(surehop: Surehop, queue: Queue): Promise<{ mismatch?: string; chosen: string }> {
  const chosen: Record<string, number | boolean> = {}
  for (;;) {
    try {
      await surehop.declare({ queues: [{ ...queue, arguments: { ...queue.arguments, ...chosen } }] })
      const said = Object.entries(chosen).map(([name, value]) => `${name} = ${value}`)
      return { chosen: said.length > 0 ? `, with ${said.join(', ')}` : '' }
    } catch (error) {
      if (!(error instanceof TopologyMismatch)) throw error
      const { argument, actual } = error
      if (!CHOICES.includes(argument) || argument in chosen) return { mismatch: error.message, chosen: '' }
      chosen[argument] = argument === 'x-single-active-consumer' ? actual === 'true' : Number(actual)
    }
  }
}

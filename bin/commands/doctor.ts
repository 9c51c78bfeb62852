/** `surehop doctor`: is everything there, and set up as it should be? Declares nothing that is not there. */
import type { Command } from 'commander'
import {
  archiveQueueOf,
  deadQueueOf,
  type Queue,
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
  await tell(brokerFinding(session))
  for (const finding of await storeFindings(session, flags)) await tell(finding)
  for (const queue of queues) for (const finding of await queueFindings(session, queue)) await tell(finding)
  return wrong === 0 ? EXIT.done : EXIT.partly
}

function brokerFinding({ surehop }: Session): Finding {
  const { healthy, reasons } = surehop.health()
  const version = surehop.brokerVersion ?? 'of unknown version'
  const known = supported(version)
  const blocked = healthy ? '' : ` ${reasons.join('; ')}`
  return {
    ok: healthy && known,
    subject: 'broker',
    text: `RabbitMQ ${version}${known ? '' : ', expected 3.10 or later'}${blocked}`,
  }
}

function supported(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 3 || (major === 3 && minor >= 10)
}

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
  for (const queue of workQueueTopology(name).queues) {
    const status = await surehop.queueStatus(queue.name)
    if (!status) {
      findings.push({ ok: false, subject: queue.name, text: 'does not exist; its consumer declares it when it starts' })
      continue
    }
    const { mismatch, chosen } = await compare(surehop, queue)
    const idle = queue.name === name && status.consumers === 0
    const consumers = idle ? 'nobody consumes it' : plural(status.consumers, 'consumer')
    const counts = `${plural(status.messages, 'message')}, ${consumers}`
    findings.push({
      ok: mismatch === undefined && !idle,
      subject: queue.name,
      text: `${mismatch ?? `arguments as declared${chosen}`}; ${counts}${hint(name, queue.name, status.messages)}`,
    })
  }
  return findings
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

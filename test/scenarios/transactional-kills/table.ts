// What came of it, as a table for people: where was killed how often, and what was found missing or too much.

import Table from 'cli-table3'
import type { TransactionalKillReport } from '../transactional-kills.ts'
import type { StepReport } from './deaths.ts'
import { FAULTS, type Verdict } from './ledger.ts'

const STYLE = { style: { head: [], border: [], compact: true } }

/** Deaths by step, and the verdicts. */
export function tableOf({ seed, kills, seconds, steps, verdicts, left, replayed }: TransactionalKillReport): string {
  const deaths = new Table({ ...STYLE, head: ['process', 'step', 'kills', 'where', 'missed'] })
  for (const row of rowsOf(steps)) deaths.push([...row])
  const faults = new Table({ ...STYLE, head: ['protocol', 'messages', ...FAULTS, 'copies dropped'] })
  for (const [protocol, verdict] of Object.entries(verdicts)) faults.push([protocol, ...countsOf(verdict)])
  const end = `${kills} kills at ${steps.filter(({ kills }) => kills > 0).length} of ${steps.length} steps in ${seconds} s, seed ${seed}`
  return `${deaths}\n${faults}\n${end}; delivered too often and replayed: ${replayed}; left: ${JSON.stringify(left)}`
}

function countsOf(verdict: Verdict): number[] {
  return [verdict.messages, ...FAULTS.map((fault) => verdict[fault].length), verdict.copies]
}

const PHASES = ['before', 'sent', 'arrived', 'after', 'at']

function phaseOf({ step }: StepReport): number {
  return PHASES.indexOf(step.split('|')[1]!)
}

/** The phases of one step in one row. */
function rowsOf(steps: readonly StepReport[]): (readonly [string, string, number, string, number])[] {
  const groups = new Map<string, StepReport[]>()
  for (const report of steps) {
    const key = `${report.role}|${report.step.split('|')[0]}`
    groups.set(key, [...(groups.get(key) ?? []), report])
  }
  const sum = (of: readonly number[]) => of.reduce((total, one) => total + one, 0)
  return [...groups].map(([key, reports]) => {
    const [role = '', what = ''] = key.split('|')
    const inOrder = reports.toSorted((a, b) => phaseOf(a) - phaseOf(b))
    const where = inOrder.map(({ step, kills }) => `${step.split('|')[1]} ${kills}`).join(', ')
    return [
      role,
      what,
      sum(reports.map(({ kills }) => kills)),
      where,
      sum(reports.map(({ missed }) => missed)),
    ] as const
  })
}

/** What a contest is made of. */

import type { Figure, Job, Measured } from './job.ts'

/** Measures one contestant. Runs in a process of its own. */
export type Run<Result = Measured> = (job: Job) => Promise<Result>

/** What a run needs first (tables, rows) is made before its process starts, so that it costs the run no memory. */
export interface PreparedContestant {
  readonly prepare: Run<void>
  readonly run: Run
}

export type Contestant = Run | PreparedContestant

/** A column of the table. */
export interface Column {
  readonly head: string
  readonly figure: Figure
  /** With a column of ratios to the first contestant beside it. */
  readonly compared?: boolean
}

/** A contest's first contestant is what the others are compared with. */
export interface Contest {
  readonly title: string
  readonly columns: readonly Column[]
  /** What one must know to read the table: options of contestants, and why. */
  readonly note?: string
  /** The queue must hold the messages before a run. */
  readonly full?: boolean
  /** Out of the messages of the whole benchmark, how many each run of this contest measures. Default: all. */
  readonly messages?: (all: number) => number
  /** What of the setting is different here. */
  readonly setting?: Partial<Job>
  readonly contestants: Readonly<Record<string, Contestant>>
}

/** The columns of contests for the most messages, or transactions, a second. */
export function rates(unit: string): readonly Column[] {
  return [
    { head: `${unit}s/s`, figure: 'perSecond', compared: true },
    { head: `client CPU, µs/${unit}`, figure: 'cpuUs', compared: true },
    { head: 'peak RSS, MB', figure: 'peakRssMb' },
  ]
}

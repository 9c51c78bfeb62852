/** What a contest is made of. */

import type { Figure, Job, Measured } from './job.ts'

/** Measures one contestant. Runs in a process of its own. */
export type Run<Result = Measured> = (job: Job) => Promise<Result>

/** What a run needs first (tables, rows, letters) is made before its process starts, so that it costs the run no memory. */
export interface PreparedContestant {
  readonly prepare: Run<void>
  readonly run: Run
}

export type Contestant = Run | PreparedContestant

/** A contestant whose module, and what it imports, is loaded when it runs, so that it costs no other contestant memory. */
export function lazy<Module>(load: () => Promise<Module>, pick: (module: Module) => Run): Run {
  return async (job) => pick(await load())(job)
}

/** A column of the table. */
export interface Column {
  readonly head: string
  readonly figure: Figure
  /** With a column of ratios to the first contestant beside it. */
  readonly compared?: boolean
}

/** How many messages each run measures, in a full benchmark and in a short look. */
export interface Size {
  readonly full: number
  readonly quick: number
}

/** A contest's first contestant is what the others are compared with. */
export interface Contest {
  readonly title: string
  readonly columns: readonly Column[]
  /** What one must know to read the table: options of contestants, what each does not do, and why. */
  readonly note?: string
  /** The queue must hold the messages before a run. */
  readonly full?: boolean
  /** Default: those of the whole benchmark. */
  readonly size?: Size
  /** Messages before the measuring begins. Default: half as many as are measured. */
  readonly warmup?: Size
  /** Repeats, at most; for what takes minutes. Default: those of the whole benchmark. */
  readonly turns?: number
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

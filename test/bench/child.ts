/** The process of one run: runs the contestant of the job it is given, sends the figures to its parent, and ends. */

import { runOf } from './contestants.ts'
import type { Job } from './job.ts'

const job = JSON.parse(process.argv[2] ?? '') as Job
const measured = await runOf(job.contest, job.contestant)(job)
process.send?.(measured, () => process.exit())

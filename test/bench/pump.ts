/** Keeps a fixed number of publishes under way: the same for every contestant. */

import { type Job, type Measured, Meter } from './job.ts'

/** Told once per message: null when it is confirmed. */
export type Confirmed = (error: Error | null) => void

/** Calls `publish` so that `inFlight` messages are under way at any time, until all are confirmed. */
export function pumped(job: Job, publish: (confirmed: Confirmed) => void): Promise<Measured> {
  const meter = new Meter(job)
  let left = job.warmup + job.messages
  return new Promise((resolve, reject) => {
    const next = () => {
      left--
      publish(confirmed)
    }
    const confirmed = (error: Error | null) => {
      if (error) return reject(error)
      meter.count()
      if (left > 0) next()
    }
    meter.done.then(resolve, reject)
    for (let i = 0; i < job.inFlight && left > 0; i++) next()
  })
}

/** The same for clients whose publish gives a promise. */
export function pumpedPromises(job: Job, publish: () => Promise<unknown>): Promise<Measured> {
  return pumped(job, (confirmed) => {
    publish().then(() => confirmed(null), confirmed)
  })
}

/** The bytes that every contestant sends. */
export function bodyOf({ bodyBytes }: Job): Buffer {
  return Buffer.alloc(bodyBytes, 'surehop ')
}

// Dies at a step: every place of interest in a process calls `reach`, and the process is gone, by its own kill -9, at the one
// that was planned for it.
//
// Promises: nothing runs between the step and the death but one synchronous write of what was reached, for those who count.
// Does not promise that a step is ever reached: whoever plans waits, and plans something else.

import { writeFileSync } from 'node:fs'

/** Where to die: at the `nth` time that the step is reached; `*` is any step, the next one. */
export interface Plan {
  readonly step: string
  readonly nth: number
}

/** What a process leaves behind. */
export interface Obituary {
  /** Undefined for a process that only tells what it has seen. */
  readonly died: Plan | undefined
  /** Step -> how often it was reached. */
  readonly seen: Readonly<Record<string, number>>
}

/** Any step. */
export const ANY = '*'
/** What steps are called that are reached once the process was asked to end. */
export const CLOSING = 'closing: '

/** The steps of this process. */
export class Steps {
  readonly #seen = new Map<string, number>()
  readonly #file: string
  #plan: Plan | undefined
  #prefix = ''

  /** @param file where the obituary goes */
  constructor(file: string) {
    this.#file = file
  }

  plan(plan: Plan | undefined): void {
    this.#plan = plan
  }

  /** From now on steps are those of an orderly end. */
  close(): void {
    this.#prefix = CLOSING
  }

  /** Called synchronously at the step. `where` is before, sent, after... */
  reach(what: string, where: string): void {
    const step = `${this.#prefix}${what}|${where}`
    const nth = (this.#seen.get(step) ?? 0) + 1
    this.#seen.set(step, nth)
    if (this.#plan?.step === ANY || (this.#plan?.step === step && nth >= this.#plan.nth)) this.#die({ step, nth })
  }

  /** Writes down what was seen so far. */
  tell(died?: Plan): void {
    const obituary: Obituary = { died, seen: Object.fromEntries(this.#seen) }
    writeFileSync(this.#file, JSON.stringify(obituary))
  }

  #die(at: Plan): never {
    this.tell(at)
    process.kill(process.pid, 'SIGKILL')
    throw new Error('unreachable: kill -9 returned')
  }
}

/**
 * `target`, with its methods as steps where `label` names them: before the call, when it has been sent and nothing has been heard of
 * it, and after its answer.
 */
export function tapped<T extends object>(
  target: T,
  steps: Steps,
  label: (method: string, args: readonly unknown[]) => string | undefined,
): T {
  const get = (_: T, name: string | symbol): unknown => {
    const value: unknown = Reflect.get(target, name, target)
    if (typeof value !== 'function') return value
    return (...args: unknown[]) => {
      const what = typeof name === 'string' ? label(name, args) : undefined
      const call = () => Reflect.apply(value, target, args)
      return what === undefined ? call() : stepwise(what, steps, call)
    }
  }
  return new Proxy(target, { get })
}

async function stepwise(what: string, steps: Steps, call: () => unknown): Promise<unknown> {
  steps.reach(what, 'before')
  // Sockets are written to before the loop comes to its immediates, and read from only after them.
  const sent = setImmediate(() => steps.reach(what, 'sent'))
  try {
    return await call()
  } finally {
    clearImmediate(sent)
    steps.reach(what, 'after')
  }
}

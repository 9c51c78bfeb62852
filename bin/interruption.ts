/** Ctrl-C, SIGTERM or a closed terminal: the first lets a command finish what is at hand, the second ends it at once. */
import type { Output } from './terminal.ts'

/** Exit code of a command that was interrupted. */
const INTERRUPTED = 130

let lent = false

/** A look that was cut short: what it has seen is not all. */
export class Interrupted extends Error {}

/** Another program has the terminal meanwhile: its Ctrl-C is not for us. */
export async function lendingTerminal<T>(use: () => Promise<T>): Promise<T> {
  lent = true
  try {
    return await use()
  } finally {
    lent = false
  }
}

/**
 * Fires at the first Ctrl-C, or when nobody reads the output. A terminal that is closed may tell it several times: that is once.
 * @param of what is at hand: `letters`
 */
export function interruption(output: Output, of: string): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      if (lent && name === 'SIGINT') return
      if (stop.signal.aborted) {
        if (name === 'SIGHUP') return
        process.exit(INTERRUPTED)
      }
      output.note(`\nInterrupted: finishing the ${of} at hand. Once more ends at once.`)
      stop.abort(new Interrupted('interrupted before the end'))
    })
  return AbortSignal.any([stop.signal, output.gone])
}

/** What comes before the signal fires; whoever looks asks the signal afterwards. */
export async function* untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  try {
    yield* source
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error
  }
}

/** Ctrl-C: the first lets a command finish what is at hand, the second ends it at once. */
import type { Output } from './terminal.ts'

/** Exit code of a command that was interrupted. */
const INTERRUPTED = 130

let lent = false

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
 * Fires at the first Ctrl-C, or when nobody reads the output.
 * @param of what is at hand: `letters`
 */
export function interruption(output: Output, of: string): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.on(name, () => {
      if (lent && name === 'SIGINT') return
      if (stop.signal.aborted) process.exit(INTERRUPTED)
      output.note(`\nInterrupted: finishing the ${of} at hand. Once more ends at once.`)
      stop.abort(new Error('interrupted'))
    })
  return AbortSignal.any([stop.signal, output.gone])
}

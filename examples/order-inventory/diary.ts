/**
 * What happened to a service's messages, one line each, written as it happens, so that kill -9 loses none: what the library told
 * through its named events, and that a handler began. For the screen only: the books are made of what was done, not of what was told.
 */
import { type EventName, type Middleware, onEvent } from '../../lib/index.ts'
import { append, opened } from './lines.ts'

/**
 * `duplicate`: a copy of a message that was done. `superseded`: a copy of one that is a dead letter. Both were dropped.
 * `committed`, `rolled-back`: a half message whose process died, decided by its check.
 */
export interface Note {
  readonly what:
    | 'began'
    | 'completed'
    | 'duplicate'
    | 'superseded'
    | 'retried'
    | 'put-off'
    | 'dead'
    | 'committed'
    | 'rolled-back'
  readonly messageId: string
  readonly transactionId: string
  /** Attempt and replay generation. */
  readonly attempt?: number
  readonly generation?: number
}

const TOLD: readonly (readonly [EventName, Note['what']])[] = [
  ['message.completed', 'completed'],
  ['message.retried', 'retried'],
  ['message.put-off', 'put-off'],
  ['message.dead-lettered', 'dead'],
]

export class Diary {
  readonly #file: number

  constructor(path: string) {
    this.#file = opened(path)
    for (const [event, what] of TOLD)
      onEvent(event, (data) => this.note(what, data as { messageId: string; transactionId: string }))
    onEvent('message.duplicate', (data) => this.note(data.why === 'superseded' ? 'superseded' : 'duplicate', data))
    onEvent('transaction.decided', ({ transactionId, decision, by }) => {
      if (by === 'check') this.note(decision, { messageId: transactionId, transactionId })
    })
  }

  note(what: Note['what'], of: Omit<Note, 'what'>): void {
    const { messageId, transactionId, attempt, generation } = of
    append(this.#file, { what, messageId, transactionId, attempt, generation })
  }

  /** Notes each run as it begins. */
  readonly middleware: Middleware = (next) => (message, context) => {
    const { messageId, transactionId } = message
    this.note('began', { messageId, transactionId, attempt: context.attempt, generation: context.generation })
    return next(message, context)
  }
}

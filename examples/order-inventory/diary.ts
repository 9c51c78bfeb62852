/**
 * What happened to a service's messages, one line each, written as it happens, so that kill -9 loses none: what the library told
 * through its named events, and two things only the service knows: that a handler began, and that its effect was found done already.
 */
import { openSync } from 'node:fs'
import { type EventName, type Middleware, onEvent } from '../../lib/index.ts'
import { append } from './journal.ts'

/** `duplicate`: a copy of a message that was done. `superseded`: a copy of one that is a dead letter. Both were dropped. */
export interface Note {
  readonly what:
    | 'published'
    | 'copied'
    | 'began'
    | 'completed'
    | 'recognised'
    | 'duplicate'
    | 'superseded'
    | 'retried'
    | 'put-off'
    | 'dead'
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
    this.#file = openSync(path, 'a')
    for (const [event, what] of TOLD)
      onEvent(event, (data) => this.note(what, data as { messageId: string; transactionId: string }))
    onEvent('message.duplicate', (data) => this.note(data.why === 'superseded' ? 'superseded' : 'duplicate', data))
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

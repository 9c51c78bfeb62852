// The ledger of the lab: what each process knew, in append-only files of its own that survive kill -9.
//
// One line per entry, JSON, written with one `writeSync` before the process goes on: the page cache outlives the process. Every
// entry has the machine's monotonic time (`process.hrtime`), which all processes share and no shifted clock moves.

/** How a message got to the broker. `direct`: publisher confirms. `outbox`: a row of a committed transaction, sent by a relay. */
export type Path = 'direct' | 'outbox'

/** One line. `at`: ns of the monotonic clock, as text (it is larger than a double holds). */
export type Entry =
  /** A producer is about to publish; or an outbox writer's transaction is about to commit. `n` counts up within a key. */
  | {
      readonly is: 'offered'
      readonly at: string
      readonly id: string
      readonly path: Path
      readonly key: string
      readonly n: number
    }
  /** What it was told. An `unknown` or `refused` one is offered again with the same id until it is confirmed. */
  | {
      readonly is: 'told'
      readonly at: string
      readonly id: string
      readonly outcome: 'confirmed' | 'refused' | 'unknown'
    }
  /** A handler began. `token`: its fencing token. */
  | { readonly is: 'started'; readonly at: string; readonly id: string; readonly token: number }
  /** The effect itself. `fenced`: storage that refuses older tokens took it; false: refused, the world did not change. */
  | {
      readonly is: 'effect'
      readonly at: string
      readonly id: string
      readonly key: string
      readonly n: number
      readonly token: number
    }
  /** The handler's end was recorded and the delivery acked, as far as the process knows. */
  | { readonly is: 'ended'; readonly at: string; readonly id: string; readonly token: number }

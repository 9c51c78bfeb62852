/**
 * Asks the broker whether an exchange takes our publishes, before any of them goes: one to a missing exchange would close the
 * channel and void the confirms of its neighbours.
 * Promises: one question per exchange at a time; one without an answer is asked again, until the publishes held for it have ended; what
 * was refused for lack of permission is not asked for again for `REFUSED_MS`, since to find it out cost a channel.
 * Does NOT promise that the exchange is still there when the publish arrives.
 */
import type { Connection } from '../connection/connection.ts'
import { pause } from '../deadline.ts'
import { MessageInvalid, PermissionRefused, ResourceMissing } from '../errors.ts'
import type { Confirms } from './confirms.ts'

/** Between two questions for an exchange that had no answer. */
const CHECK_PAUSE_MS = 250
/** A refused exchange is not tried again for so long: each try costs the channel. */
const REFUSED_MS = 5_000

/**
 * The broker tells in at most 255 bytes that an exchange is missing, or not permitted. RabbitMQ 4.0 and 4.3 count characters where they mean bytes,
 * and when a name of other than ASCII characters makes the text too long, they close the connection, with all that is under way there.
 */
const MAX_WIDE_NAME_BYTES = 150

/** What a check works on. */
export interface ExchangeCheckOptions {
  readonly connection: Connection
  readonly confirms: Confirms
  /** Publishes that were held may go now, or an exchange can be asked for again. */
  readonly asked: () => void
}

/** The questions for exchanges, and the answers that are kept for a while. */
export class ExchangeCheck {
  readonly #connection: Connection
  readonly #confirms: Confirms
  readonly #asked: () => void
  readonly #asking = new Set<string>()
  readonly #refused = new Map<string, { readonly until: number; readonly error: Error }>()
  /** Why the latest question for an exchange had no answer. */
  readonly #unanswered = new Map<string, Error>()
  /** Channels of publishes that were lost. An answer to a question from before the latest loss may be out of date. */
  #losses = 0

  constructor({ connection, confirms, asked }: ExchangeCheckOptions) {
    this.#connection = connection
    this.#confirms = confirms
    this.#asked = asked
  }

  /** Why publishes are held, where a question for their exchange had no answer. */
  get problem(): string | undefined {
    const [problem] = this.#confirms.heldExchanges.flatMap((exchange) => this.problemOf(exchange) ?? [])
    return problem
  }

  /** The same for one exchange. */
  problemOf(exchange: string): string | undefined {
    const error = this.#unanswered.get(exchange)
    return error && `the broker could not be asked for exchange "${exchange}": ${error.message}`
  }

  /** Asks for all exchanges that publishes are held for. */
  askForHeld(): void {
    for (const exchange of this.#confirms.heldExchanges) void this.#ask(exchange)
  }

  /** The broker closed the channel over a publish to this exchange. */
  refused(exchange: string, error: Error): void {
    this.#refused.set(exchange, { until: performance.now() + REFUSED_MS, error })
  }

  /** The channel was lost, perhaps because an exchange was deleted. */
  forget(): void {
    this.#losses++
    this.#confirms.forgetExchanges()
  }

  async #ask(exchange: string): Promise<void> {
    if (this.#asking.has(exchange)) return
    this.#asking.add(exchange)
    const losses = this.#losses
    try {
      await this.#check(exchange)
      this.#unanswered.delete(exchange)
      if (losses === this.#losses) this.#confirms.exchangeKnown(exchange)
    } catch (cause) {
      await this.#failed(exchange, cause)
    }
    this.#asking.delete(exchange)
    this.#asked()
  }

  async #failed(exchange: string, cause: unknown): Promise<void> {
    if (isFinal(cause)) {
      this.#unanswered.delete(exchange)
      this.#confirms.exchangeRefused(exchange, cause.message, cause)
    } else {
      this.#unanswered.set(exchange, cause as Error)
      await pause(CHECK_PAUSE_MS, undefined, true)
      if (!this.#confirms.heldExchanges.includes(exchange)) this.#unanswered.delete(exchange)
    }
  }

  async #check(exchange: string): Promise<void> {
    const refused = this.#refused.get(exchange)
    if (refused && performance.now() < refused.until) throw refused.error
    this.#refused.delete(exchange)
    checkName(exchange)
    const doing = `publish to exchange "${exchange}"`
    await this.#connection.withChannel((channel) => this.#connection.rpc(doing, () => channel.checkExchange(exchange)))
  }
}

function isFinal(error: unknown): error is Error {
  return error instanceof ResourceMissing || error instanceof PermissionRefused || error instanceof MessageInvalid
}

function checkName(exchange: string): void {
  if (!exchange.isWellFormed())
    throw new MessageInvalid(
      'exchange',
      'expected exchange to be text, got half of a surrogate pair: it would go to an exchange of another name',
    )
  const bytes = Buffer.byteLength(exchange)
  if (bytes <= MAX_WIDE_NAME_BYTES || bytes === exchange.length) return
  throw new MessageInvalid(
    'exchange',
    `expected exchange to be at most ${MAX_WIDE_NAME_BYTES} bytes where its name has other characters than ASCII, got ${bytes}: ` +
      'RabbitMQ 4 may close the connection over it. Give the exchange a shorter name',
  )
}

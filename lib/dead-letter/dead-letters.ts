/**
 * The dead letters of one queue: look, group, send again, discard, restore, edit, export, import. The one API behind the
 * command, and what others build on it.
 *
 * Promises: looking changes neither count nor order, and memory does not grow with the number of letters; one inspector at a time
 * (the second is told `ResourceBusy`); a letter leaves a queue only when the broker has confirmed its copy elsewhere.
 * Does NOT promise the first of a queue with a low delivery limit, be it by a policy of the broker or since another declared it: each
 * look counts there, and beyond the limit the broker drops the letters. Does NOT promise that a letter is in one place only: after a
 * crash its copy may be there too. Ids and generations say so.
 */
import type { Connection } from '../connection/connection.ts'
import type { IdempotencyStore, Scope } from '../idempotency/idempotency.ts'
import type { RawDelivery } from '../message.ts'
import type { Events } from '../observability/events.ts'
import { callable, checkOptions, flag, having, needed, number, type Rule, text } from '../options.ts'
import type { Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import type { Declarer } from '../topology/declarer.ts'
import { archiveQueue, archiveQueueOf, deadQueue, deadQueueOf, workQueueName } from '../topology/queues.ts'
import { EMPTY } from '../topology/topology.ts'
import { type Chosen, chooser } from './chosen.ts'
import { archiveCopy, type LetterEdit, restoredCopy } from './copies.ts'
import { checkEdit, type EditedLetter, editLetter } from './edit.ts'
import { type FullLetter, full } from './full.ts'
import { Grouping, type LetterGroup } from './groups.ts'
import { type ImportOptions, type ImportResult, importLines } from './import.ts'
import { type MoveOptions, type MoveResult, move } from './move.ts'
import { exportLine } from './ndjson.ts'
import { countOf, type Hold, Reader } from './reader.ts'
import { aheadOf, type ReplayOptions, type ReplayResult, replay } from './replay.ts'
import { compileSelection, type Selection } from './selection.ts'
import { type Letter, queueName } from './story.ts'

/** Options of `surehop.deadLetters()`. */
export interface DeadLettersOptions {
  /** The store of the queue's consumer: tells what a replay would be good for, and how it went. */
  readonly idempotency?: IdempotencyStore
  /** Name of the consumer's scope in that store. Default: the queue. */
  readonly scopeName?: string
}

/** What the front door lends. */
export interface DeadLettersParts {
  readonly connection: Connection
  readonly declarer: Declarer
  readonly publisher: Publisher
  readonly events: Events
}

/** How letters are looked at. */
export interface LookOptions {
  /** Those that were discarded. Default false. */
  readonly archive?: boolean
  /** Ends the look: it throws the signal's reason. */
  readonly signal?: AbortSignal
}

const RULES = {
  idempotency: having('an idempotency store such as RedisIdempotencyStore', 'look'),
  scopeName: text(200),
}
const aSignal = having('an AbortSignal', 'addEventListener')
const LOOK_RULES = { archive: flag, signal: aSignal }
const MOVE_RULES = { dryRun: flag, signal: aSignal, onMoved: callable }
const IMPORT_RULES = { dryRun: flag, signal: aSignal }
const target: Rule = (value) =>
  queueName(value) ? undefined : 'a queue that is neither dead letters, an archive nor a delay'
const REPLAY_RULES = {
  dryRun: flag,
  perSecond: number(0, 1_000_000),
  watch: flag,
  watchMs: number(0, 86_400_000),
  maxFailing: number(0, 1),
  force: flag,
  to: target,
  signal: aSignal,
  onOutcome: callable,
  onBatch: callable,
}

/** The dead letters of one queue. Made by `surehop.deadLetters()`. */
export class DeadLetters {
  /** The work queue they belong to. */
  readonly queue: string
  readonly #parts: DeadLettersParts
  readonly #store: IdempotencyStore | undefined
  readonly #scope: Scope

  /** Use `surehop.deadLetters()`. */
  constructor(queue: string, options: DeadLettersOptions, parts: DeadLettersParts) {
    checkOptions('deadLetters()', { queue }, { queue: needed(workQueueName) })
    checkOptions(`deadLetters("${queue}")`, options, RULES)
    this.queue = queue
    this.#parts = parts
    this.#store = options.idempotency
    // Only the name counts for reading.
    this.#scope = { name: options.scopeName ?? queue, retentionMs: 1, leaseMs: 1, maxStarts: 1 }
  }

  /**
   * The letters, oldest first, read as they are asked for. Nobody else can look until the iteration ends.
   * @throws ResourceBusy, ResourceMissing, NotConnected; InvalidOption for a selection that cannot be read; BrokerTimeout for a queue that
   *   has letters and gives none
   */
  async *list(selection: Selection = {}, options: LookOptions = {}): AsyncGenerator<Letter> {
    for await (const { letter } of this.#selected(selection, options)) yield letter
  }

  /** How many there are, those somebody looks at now not counted. */
  async count(options: { readonly archive?: boolean } = {}): Promise<number> {
    checkOptions('count()', options, { archive: flag })
    return countOf(this.#parts.connection, options.archive ? archiveQueueOf(this.queue) : deadQueueOf(this.queue))
  }

  /** Letters that failed alike, the largest group first; never some of them only: interrupted, it throws. */
  async groups(selection: Selection = {}, options: LookOptions = {}): Promise<LetterGroup[]> {
    const grouping = new Grouping()
    for await (const { letter } of this.#selected(selection, options)) grouping.add(letter)
    return grouping.result()
  }

  /** All letters with this id, with body and headers: normally one, none if there is no such letter. */
  async show(id: string, options: LookOptions = {}): Promise<FullLetter[]> {
    const found: FullLetter[] = []
    for await (const { letter, taken } of this.#selected({ ids: [id], limit: SAME_ID_MAX }, options))
      found.push(full(letter, taken.raw))
    return found
  }

  /**
   * Sends letters again, slowly and carefully unless told otherwise; see `ReplayOptions`. Interrupted or cut off, it tells what was done.
   * @throws ResourceBusy, ResourceMissing, NotConnected, InvalidOption: before anything is sent
   */
  async replay(selection: Selection = {}, options: ReplayOptions = {}): Promise<ReplayResult> {
    checkOptions('replay()', options, REPLAY_RULES)
    const selected = compileSelection(selection)
    const { publisher, events } = this.#parts
    const { queue } = this
    const send = async (reader: Reader) => {
      const take = chooser(reader, selected)
      return replay({ reader, take, publisher, events, queue, store: this.#store, scope: this.#scope }, options)
    }
    return this.#read(deadQueueOf(queue), send, { most: aheadOf(options), signal: options.signal })
  }

  /** Moves letters to the archive, from which `restore` brings them back for 14 days. Emits dead-letter.discarded. */
  async discard(selection: Selection = {}, options: MoveOptions = {}): Promise<MoveResult> {
    const { queue } = this
    return this.#move(deadQueueOf(queue), archiveQueueOf(queue), archiveCopy, selection, options, (copy) =>
      this.#discarded(copy),
    )
  }

  /** Moves letters from the archive back to the dead letters. */
  async restore(selection: Selection = {}, options: MoveOptions = {}): Promise<MoveResult> {
    const { queue } = this
    return this.#move(archiveQueueOf(queue), deadQueueOf(queue), restoredCopy, selection, options, () => {})
  }

  /**
   * Replaces a letter by an edited one of a newer generation; the original is in the archive before that. Of several letters with this id
   * the newest is edited, and exact copies of it go with it: sent again, one of them would be handled instead of the edited letter.
   * @throws ResourceMissing for no such letter, or no longer of this generation; InvalidOption, MessageInvalid, PublishFailed, ChannelLost: the
   *   original is untouched. After the last two the archive may hold a copy of it, too, and the edited one is there only if the outcome is `unknown`
   */
  async edit(id: string, edit: LetterEdit): Promise<EditedLetter> {
    checkEdit(edit)
    const { publisher } = this.#parts
    const dead = deadQueueOf(this.queue)
    await this.#declare()
    return this.#read(dead, (reader) =>
      editLetter({ reader, publisher, dead, archive: archiveQueueOf(this.queue) }, id, edit, (archived) =>
        this.#discarded(archived),
      ),
    )
  }

  /** The letters as lines of JSON (NDJSON), each with its line feed. */
  async *exportTo(selection: Selection = {}, options: LookOptions = {}): AsyncGenerator<string> {
    for await (const { taken } of this.#selected(selection, options)) yield `${exportLine(taken.raw)}\n`
  }

  /**
   * Takes lines of JSON as `exportTo` writes them into the dead letters, ids and all. Every line is checked before it is sent;
   * with `dryRun` they are only checked.
   * @throws MessageInvalid `line 7: ...`: the lines before it were taken; PublishFailed `line 7: ...`: so were those, and perhaps some of the
   *   next hundred
   */
  async importFrom(source: AsyncIterable<string | Uint8Array>, options: ImportOptions = {}): Promise<ImportResult> {
    checkOptions('importFrom()', options, IMPORT_RULES)
    if (!options.dryRun) await this.#declare()
    return importLines(source, { publisher: this.#parts.publisher, dead: deadQueueOf(this.queue) }, options)
  }

  async *#selected(selection: Selection, options: LookOptions): AsyncGenerator<Chosen> {
    checkOptions('options of a look', options, LOOK_RULES)
    const selected = compileSelection(selection)
    const { archive, signal } = options
    const name = archive ? archiveQueueOf(this.queue) : deadQueueOf(this.queue)
    signal?.throwIfAborted()
    const reader = await Reader.open(this.#parts.connection, name, { first: selected.limit, signal })
    try {
      const take = chooser(reader, selected)
      for (let some = await take(PAGE); some.length > 0; some = await take(PAGE))
        for (const one of some) {
          signal?.throwIfAborted()
          yield one
        }
      signal?.throwIfAborted()
    } finally {
      await reader.close()
    }
  }

  async #read<T>(queue: string, use: (reader: Reader) => Promise<T>, hold: Hold = {}): Promise<T> {
    const reader = await Reader.open(this.#parts.connection, queue, hold)
    try {
      return await use(reader)
    } finally {
      await reader.close()
    }
  }

  async #move(
    from: string,
    to: string,
    copyOf: (raw: RawDelivery, to: string) => Encoded,
    selection: Selection,
    options: MoveOptions,
    moved: (copy: Encoded) => void,
  ): Promise<MoveResult> {
    checkOptions('options of a move', options, MOVE_RULES)
    const selected = compileSelection(selection)
    if (!options.dryRun) await this.#declare()
    const { publisher } = this.#parts
    const moving = async (reader: Reader) => {
      const take = chooser(reader, selected)
      return move({ reader, take, publisher, copyOf: (raw) => copyOf(raw, to), moved }, options)
    }
    return this.#read(from, moving, { signal: options.signal })
  }

  #discarded({ messageId, transactionId }: Encoded): void {
    this.#parts.events.emit('dead-letter.discarded', { messageId, transactionId, queue: this.queue })
  }

  /** Targets of what is moved; somebody may have deleted them since we last did. Looking declares nothing. */
  async #declare(): Promise<void> {
    await this.#parts.declarer.declareAnew({ ...EMPTY, queues: [deadQueue(this.queue), archiveQueue(this.queue)] })
  }
}

/** Letters handed on at once. */
const PAGE = 256
/** Letters of one id that are shown. */
const SAME_ID_MAX = 100

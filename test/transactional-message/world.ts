// One transaction among a committer, two instances that check back, and an operator, in a world where every step of everybody
// waits for its turn. The code that runs is the code under test (`Transactional.run`, `Ledger`, `takeTurn`); only the store, the broker
// and the service behind `check` are models. Whoever holds the turns can explore every order, and every fault at every step.

import { Events } from '../../lib/observability/events.ts'
import { type CheckAnswer, takeTurn, type Verdict } from '../../lib/transactional-message/check-back.ts'
import type { CheckQueue } from '../../lib/transactional-message/check-queue.ts'
import {
  type Decider,
  type Decision,
  type DecisionStore,
  type DecisionView,
  UNDECIDED,
} from '../../lib/transactional-message/decisions.ts'
import type { HalfMessage } from '../../lib/transactional-message/envelope.ts'
import { Ledger } from '../../lib/transactional-message/ledger.ts'
import type { Settings } from '../../lib/transactional-message/options.ts'
import type { Outlet } from '../../lib/transactional-message/outlet.ts'
import type { ParkedWatch } from '../../lib/transactional-message/parked-watch.ts'
import { PreparedHere } from '../../lib/transactional-message/prepared-here.ts'
import type { Preparer } from '../../lib/transactional-message/preparer.ts'
import { Transactional } from '../../lib/transactional-message/transactional-message.ts'

/** What may happen in a run; each fault once. */
export interface Story {
  /** What the work does; `elsewhere`: it is committed by a process that has not got the messages. */
  readonly work: 'done' | 'elsewhere' | 'fails'
  /** `hasty`: says "rollback" as long as the work was not done, also when it still may be. */
  readonly check: 'true' | 'hasty'
  readonly operator?: 'commit' | 'rollback'
  readonly faults: readonly Fault[]
}

/** The committer dies; the first instance loses its channel and works on; the store forgets; a reply of store or broker is lost. */
export type Fault = 'kill' | 'lose' | 'forget' | 'no-reply'

interface Waiting {
  readonly what: string
  readonly grant: (lost: boolean) => void
}

const HALF: HalfMessage = { halfId: 'h', transactionId: 't', preparedAt: 0, service: 's', messages: [] }
const LIMITS = { firstCheckMs: 1, checkCapMs: 1, checks: 1, maxAgeMs: 1e15 }
const MESSAGES = ['m1', 'm2']

/** See the head of this file. */
export class World {
  readonly broken: string[] = []
  readonly #story: Story
  readonly #waiting = new Map<string, Waiting>()
  readonly #history = new Map<string, string[]>()
  readonly #dead = new Set<string>()
  readonly #used = new Set<Fault>()
  #record: DecisionView = UNDECIDED
  /** What the store was ever seen to say, since it last forgot. */
  #seen = new Set<Decision>()
  #half: { at: 'queue' | 'parked' | 'gone' | `held by ${string}`; verdict: Verdict | undefined } = {
    at: 'queue',
    verdict: undefined,
  }
  readonly #published = new Map<string, number>()
  #work: 'open' | 'done' | 'never' = 'open'
  #outcome: string | undefined
  #running = 0

  constructor(story: Story) {
    this.#story = story
    this.#start('committer', () => this.#commit())
    for (const name of ['A', 'B']) this.#start(name, () => this.#checkBack(name))
    if (story.operator) this.#start('operator', () => this.#operate(story.operator!))
  }

  /** All that may happen next. */
  get choices(): string[] {
    const steps = [...this.#waiting.keys()]
    const faults = this.#story.faults.filter((fault) => !this.#used.has(fault))
    return [
      ...steps,
      ...faults.flatMap((fault) => {
        if (fault === 'no-reply')
          return steps.filter((s) => this.#waiting.get(s)!.what.match(/^(store|publish)/)).map((s) => `${s}!`)
        if (fault === 'kill') return this.#waiting.has('committer') ? ['kill'] : []
        if (fault === 'lose') return this.#half.at === 'held by A' ? ['lose'] : []
        return this.#record === UNDECIDED ? [] : ['forget']
      }),
    ]
  }

  /** Two worlds with the same key go on alike. */
  get key(): string {
    const waiting = [...this.#waiting].map(([name, { what }]) => `${name}:${what}`).sort()
    const { decidedAt: _, ...record } = this.#record
    return JSON.stringify([
      record,
      this.#half,
      [...this.#published].sort(),
      [this.#work, this.#outcome, this.#running],
      [...this.#dead, ...this.#used].sort(),
      [...this.#history].sort(),
      [...this.#seen],
      waiting,
    ])
  }

  async choose(choice: string): Promise<void> {
    if (choice === 'kill') this.#kill()
    else if (choice === 'lose') {
      this.#used.add('lose')
      this.#half.at = 'queue'
    } else if (choice === 'forget') this.#forget()
    else {
      const lost = choice.endsWith('!')
      if (lost) this.#used.add('no-reply')
      const name = choice.replace('!', '')
      const { grant } = this.#waiting.get(name)!
      this.#waiting.delete(name)
      grant(lost)
    }
    await settled()
  }

  /** No more faults: whoever is left comes to an end, then a fresh instance checks back until nothing changes; all promises are checked. */
  async end(): Promise<readonly string[]> {
    await settled()
    for (let round = 0; round < 6 && this.#half.at !== 'gone'; round++) {
      // What is decided is taken up by the watch, and for the rest an operator asks once more.
      const verdict = this.#record.decision ? undefined : 'check'
      if (this.#half.at === 'parked') this.#half = { at: 'queue', verdict }
      this.#start(`C${round}`, () => this.#checkBack(`C${round}`))
      for (await settled(); this.#waiting.size > 0; ) await this.choose([...this.#waiting.keys()][0]!)
    }
    this.#judge()
    return this.broken
  }

  #judge(): void {
    const forgot = this.#used.has('forget')
    const all = MESSAGES.every((m) => this.#published.has(m))
    const none = this.#published.size === 0
    this.#must(this.#half.at === 'gone', `not ended: ${this.#half.at}`)
    if (this.#outcome === 'published' || this.#outcome === 'decided')
      this.#must(all, `committed (${this.#outcome}), and not all published`)
    if (this.#outcome === 'rolled-back') this.#must(none, 'rolled back by the service, and something published')
    if (this.#outcome === 'ALREADY_ROLLED_BACK') this.#must(forgot || none, 'a late commit was refused, and sent')
    if (this.#seen.has('rolled-back') && !forgot) this.#must(none, 'rolled back, and something published')
    if (this.#seen.has('committed')) this.#must(all, 'committed, and not all published')
    if (this.#work === 'never' && !this.#story.operator)
      this.#must(none, 'the work never happened, and something was published')
    if (this.#work === 'done' && this.#story.check === 'true' && !this.#story.operator)
      this.#must(all, 'the work was done, and not all was published')
  }

  #must(holds: boolean, what: string): void {
    if (!holds) this.broken.push(what)
  }

  #kill(): void {
    this.#used.add('kill')
    this.#dead.add('committer')
    this.#waiting.delete('committer')
    if (this.#work === 'open') this.#work = 'never'
  }

  #forget(): void {
    this.#used.add('forget')
    this.#record = UNDECIDED
    this.#seen = new Set()
  }

  #start(name: string, run: () => Promise<void>): void {
    this.#running++
    this.#history.set(name, [])
    void run().finally(() => this.#running--)
  }

  /** One step of somebody: done when its turn comes, all at once. */
  #step<T>(who: string, what: string, run: () => T): Promise<T> {
    if (this.#dead.has(who)) return new Promise(() => {})
    return new Promise((resolve, reject) => {
      const grant = (lost: boolean) => {
        const result = run()
        this.#history.get(who)!.push(lost ? `${what} lost` : `${what} ${JSON.stringify(result, withoutTime)}`)
        if (lost) reject(new Error('no reply'))
        else resolve(result)
      }
      this.#waiting.set(who, { what, grant })
    })
  }

  async #commit(): Promise<void> {
    const { work } = this.#story
    const prepared = new PreparedHere()
    const half = { ...HALF }
    if (work === 'elsewhere') prepared.add = () => {}
    const transactional = new Transactional({
      name: 'n',
      settings: {} as Settings,
      ready: async () => {},
      ledger: this.#ledger('committer'),
      preparer: { prepare: async () => half } as unknown as Preparer,
      outlet: { publish: () => this.#publish('committer') } as unknown as Outlet,
      queue: {} as CheckQueue,
      watch: {} as ParkedWatch,
      prepared,
    })
    const doWork = () =>
      this.#step('committer', 'work', () => {
        this.#work = work === 'fails' ? 'never' : 'done'
        return this.#work
      })
    const run = transactional.run([], async () => {
      if ((await doWork()) === 'never') throw new Error('the work failed')
    })
    this.#outcome = await run.then(
      ({ outcome }) => outcome,
      (error: { code?: string }) => error.code ?? 'error',
    )
  }

  async #checkBack(who: string): Promise<void> {
    const ledger = this.#ledger(who)
    const around = {
      limits: LIMITS,
      look: async () => (await ledger.look(['t']))[0]!,
      decide: (decision: Decision, by: Decider) => ledger.decide('t', decision, by),
      checked: () => ledger.checked('t'),
      published: () => ledger.published('t', { halfId: 'h', messages: 2 }),
      ask: (check: number) => ledger.ask('t', { check, preparedAt: 0 }),
      random: () => 0,
    }
    // With a lost channel, B stands for the next one that gets it: one turn, or the number of worlds explodes.
    const turns = who === 'B' && this.#story.faults.includes('lose') ? 1 : 2
    for (let turn = 0; turn < turns; turn++) {
      const taken = await this.#step(who, 'deliver', () => {
        if (this.#half.at !== 'queue') return undefined
        this.#half = { ...this.#half, at: `held by ${who}` }
        return { ...this.#half }
      })
      if (!taken) continue
      const { verdict } = taken
      const publish = () => this.#publish(who)
      const end = await around
        .look()
        .then((record) => takeTurn({ phase: 'arrived', halfId: 'h', record, verdict, ageMs: 0, publish }, around))
        .catch(() => ({ do: 'hold' as const }))
      await this.#step(who, end.do, () => this.#settle(who, end.do))
      // Nothing of a turn is remembered by the next one.
      this.#history.set(who, [`${turn + 1} turns`])
    }
  }

  /** What comes from a lost channel changes nothing. */
  #settle(who: string, verb: string): void {
    if (this.#half.at !== `held by ${who}`) return
    if (verb === 'ack') {
      this.#must(this.#record.decision !== undefined || this.#used.has('forget'), 'acked, and undecided')
      const sent = MESSAGES.every((m) => this.#published.has(m))
      this.#must(this.#record.decision !== 'committed' || sent, 'acked as committed, and not all published')
      this.#half.at = 'gone'
    } else this.#half.at = verb === 'park' ? 'parked' : 'queue'
  }

  async #operate(verdict: Verdict): Promise<void> {
    await this.#step('operator', 'verdict', () => {
      if (this.#half.at === 'parked') this.#half = { at: 'queue', verdict }
    })
  }

  async #publish(who: string): Promise<void> {
    for (const message of MESSAGES)
      await this.#step(who, `publish ${message}`, () => {
        this.#published.set(message, Math.min(3, (this.#published.get(message) ?? 0) + 1))
      })
  }

  #ledger(who: string): Ledger {
    const check = () => this.#step(who, 'check', () => this.#answer())
    const scope = { name: 'n', retentionMs: 1 }
    return new Ledger({ store: this.#store(who), scope, check, checkTimeoutMs: 2_147_483_647, events: new Events('w') })
  }

  #answer(): CheckAnswer {
    if (this.#work === 'done') return 'commit'
    return this.#work === 'never' || this.#story.check === 'hasty' ? 'rollback' : 'unknown'
  }

  #store(who: string): DecisionStore {
    const step = <T>(what: string, run: () => T) => this.#step(who, `store ${what}`, run)
    return {
      decide: (_, __, decision, by) =>
        step('decide', () => {
          if (!this.#record.decision) this.#record = { ...this.#record, decision, by }
          return this.#saw()
        }),
      look: () => step('look', () => [this.#saw()]),
      published: (_, __, published) =>
        step('published', () => {
          if (this.#record.decision !== 'rolled-back')
            this.#record = { ...this.#record, decision: 'committed', published }
        }),
      checked: () =>
        step('checked', () => {
          this.#record = { ...this.#record, checks: this.#record.checks + 1 }
          return this.#record.checks
        }),
      check: async () => [],
      close: async () => {},
    }
  }

  #saw(): DecisionView {
    if (this.#record.decision) this.#seen.add(this.#record.decision)
    this.#must(this.#seen.size < 2, 'two decisions were seen')
    return this.#record
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

function withoutTime(name: string, value: unknown): unknown {
  return name === 'decidedAt' ? undefined : value
}

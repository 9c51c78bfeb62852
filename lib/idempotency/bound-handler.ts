/**
 * Handlers that work with one store only, and what can be known of that when a consumer starts.
 * Promises: a handler of `transactional()` beside no store, or beside one that keeps its records elsewhere, is refused at start. The
 * stores may be two objects, or one in a wrapper: what counts is where the consumer's owner is known once it has said that it lives.
 * Does NOT promise to see through a function around the handler: that one is told at its first message.
 */
import type { Handler } from '../consumer/handler.ts'
import { InvalidOption } from '../errors.ts'
import type { Scope } from './idempotency.ts'

/** Asks the handler's own store for an owner that has just renewed its lease. @throws InvalidOption, StoreUnavailable */
export type StoreCheck = (scope: Scope, owner: string) => Promise<void>

const checks = new WeakMap<object, StoreCheck>()

/** Notes which store a handler works with. */
export function bindTo<Body>(check: StoreCheck, handler: Handler<Body>): Handler<Body> {
  checks.set(handler, check)
  return handler
}

/** The check of a handler; none for one that works with any store. */
export function storeCheckOf(handler: object): StoreCheck | undefined {
  return checks.get(handler)
}

const EXPECTED = 'expected consume(queue, { idempotency: inbox }, inbox.transactional(...)), with one inbox'

/** @throws InvalidOption for a handler of `transactional()` and no store */
export function refuseWithoutStore(where: string, handler: object): void {
  if (!checks.has(handler)) return
  throw new InvalidOption(
    `${where}: its handler is one of transactional(), and there is no idempotency store: ${EXPECTED}`,
  )
}

/** The error for a handler whose store does not know its consumer. */
export function anotherStore(queue: string, schema: string): InvalidOption {
  return new InvalidOption(
    `consume("${queue}"): its handler is one of transactional(), whose inbox in schema "${schema}" does not know this consumer, so "idempotency" is another store: ${EXPECTED}. No message was taken`,
  )
}

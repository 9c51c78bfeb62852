/**
 * A client of a pool, lent for the time of one transaction.
 *
 * Promises: what is asked of it when the transaction has ended is refused. Without that, work that goes on although its caller has failed
 * (the other branch of a `Promise.all`) would find its client outside any transaction, or inside the next one on that connection,
 * and what it writes would stand though all was rolled back. For all else it is the client itself.
 * Does NOT know of transactions that the work ends by itself.
 */
import { Closed } from '../errors.ts'

/** What is asked. */
interface Asked {
  query(sql: string, parameters?: unknown[]): unknown
}

/** The client, and how to take it back. */
export interface LentFor<Client> {
  readonly lent: Client
  readonly end: () => void
}

/** Lends the client until `end`. */
export function lentFor<Client extends Asked>(client: Client): LentFor<Client> {
  let ended = false
  const query = (...parameters: unknown[]) =>
    ended ? refused(parameters) : Reflect.apply(client.query, client, parameters)
  const get = (_: Client, name: string | symbol) => {
    if (name === 'query') return query
    const value: unknown = Reflect.get(client, name)
    // On the client itself: its methods may have private fields.
    return typeof value === 'function' && name !== 'constructor' ? value.bind(client) : value
  }
  const end = () => {
    ended = true
  }
  // For what is frozen a proxy may give nothing else.
  const shown = Object.isFrozen(client) ? Object.create(client) : client
  return { lent: new Proxy<Client>(shown, { get }), end }
}

/** In the way in which it was asked: by a callback, with an object that is to be told (a cursor), or for a promise. */
function refused(parameters: readonly unknown[]): Promise<never> | undefined {
  const error = new Closed(
    'the transaction has ended: await what is asked of its client before it ends, also where it fails',
  )
  const [first] = parameters
  const callback = parameters.at(-1)
  if (typeof (first as { submit?: unknown } | undefined)?.submit === 'function') throw error
  if (typeof callback !== 'function') return Promise.reject(error)
  queueMicrotask(() => callback(error))
  return undefined
}

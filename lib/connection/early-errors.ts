/**
 * Listens to the errors of our connections from their beginning. amqplib reads all that came together with the broker's open-ok before it
 * hands the connection over; an error among that (the client was busy, or the broker in trouble) is emitted while nobody can listen, and
 * ends the process.
 * Promises: a connection that failed so has ended, like any other, and its error is known.
 * Does NOT promise so of a process's first connection where amqplib was bundled, or not loaded by Node: it shows us amqplib's class then.
 */
// Under a name of our own: bundles often begin with a `createRequire` of theirs, and two would be none.
import { createRequire as requireFrom } from 'node:module'

/** What our connections call themselves: those of others that use amqplib are left alone. */
export const PRODUCT = 'surehop'

/** What is needed of amqplib's connection. */
interface Opening {
  open(fields: { readonly clientProperties?: { readonly product?: unknown } }, opened: unknown): void
  on(event: 'error', listener: (error: Error) => void): unknown
}

/** The package hands the class to nobody; Node knows the file. */
const FILE = /[\\/]amqplib[\\/]lib[\\/]connection\.js$/

const known = new WeakSet<object>()
const errors = new WeakMap<object, Error>()

/** Changes how connections of each amqplib that is loaded open from now on. */
export function listenToLoaded(): void {
  // Whoever asks, the cache is the same.
  for (const [path, module] of Object.entries(requireFrom(process.execPath).cache ?? {})) {
    if (!FILE.test(path)) continue
    const { Connection } = (module?.exports ?? {}) as { readonly Connection?: { readonly prototype?: Opening } }
    if (Connection?.prototype) listen(Connection.prototype)
  }
}

/** The same for connections of this one's class. */
export function listenEarly(connection: object): void {
  listen(Object.getPrototypeOf(connection) as Opening)
}

/** An amqplib that works in another way is left alone. */
function listen(kind: Opening): void {
  const { open } = kind
  if (typeof open !== 'function' || known.has(kind)) return
  known.add(kind)
  kind.open = function (this: Opening, fields, opened) {
    if (fields.clientProperties?.product === PRODUCT) this.on('error', (error) => void errors.set(this, error))
    open.call(this, fields, opened)
  }
}

/** What it ended with, where that is known. */
export function errorOf(connection: object): Error | undefined {
  return errors.get(connection)
}

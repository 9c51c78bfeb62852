/**
 * Listens to the errors of our connections from their beginning. amqplib reads all that came together with the broker's open-ok before it
 * hands the connection over; an error among that (the client was busy, or the broker in trouble) is emitted while nobody can listen, and
 * ends the process.
 * Promises: a connection that failed so has ended, like any other, and its error is known.
 * Does NOT promise so of the first connection of a process: it shows us amqplib's class, which the package hands to nobody.
 */

/** What our connections call themselves: those of others that use amqplib are left alone. */
export const PRODUCT = 'surehop'

/** What is needed of amqplib's connection. */
interface Opening {
  open(fields: { readonly clientProperties?: { readonly product?: unknown } }, opened: unknown): void
  on(event: 'error', listener: (error: Error) => void): unknown
}

const known = new WeakSet<object>()
const errors = new WeakMap<object, Error>()

/** Changes how connections of this one's class open from now on. An amqplib that works in another way is left alone. */
export function listenEarly(connection: object): void {
  const kind = Object.getPrototypeOf(connection) as Opening
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

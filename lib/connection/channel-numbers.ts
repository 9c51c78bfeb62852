/**
 * Keeps the number of a closed channel from its next owner until all that the channel wrote is with the socket. amqplib gives the
 * number away at once, and while much waits to be written, the new channel's `open` may overtake the old one's `close-ok`: the
 * broker then closes the whole connection (504, second 'channel.open'), and all confirms under way there are lost.
 * An amqplib that works in another way is left alone.
 */
import type { Readable } from 'node:stream'

/** What is needed of amqplib's connection. */
export interface NumberedConnection {
  readonly channels: readonly ({ readonly buffer: Readable } | null)[]
  readonly freeChannels: { set(number: number): void; clear(number: number): void }
  releaseChannel(number: number): void
}

/** Changes how this connection gives channel numbers back from now on. */
export function keepNumbers(connection: Partial<NumberedConnection>): void {
  if (!isNumbered(connection)) return
  const { channels, freeChannels, releaseChannel } = connection
  connection.releaseChannel = (number) => {
    const buffer = channels[number]?.buffer
    releaseChannel.call(connection, number)
    if (!buffer) return
    freeChannels.set(number)
    buffer.once('end', () => freeChannels.clear(number))
  }
}

function isNumbered(connection: Partial<NumberedConnection>): connection is NumberedConnection {
  const { channels, freeChannels, releaseChannel } = connection
  return (
    Array.isArray(channels) &&
    typeof releaseChannel === 'function' &&
    typeof freeChannels?.set === 'function' &&
    typeof freeChannels.clear === 'function'
  )
}

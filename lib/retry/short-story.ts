/**
 * Sends a copy of a message with as much of its story as there is room for: where the message's own headers nearly fill what the broker
 * (frame_max) or amqplib (64 KiB) takes, the text and the stack of the error are what can be done without.
 * Promises: whatever fits without them is sent.
 */
import { HEADER } from '../message.ts'
import type { Encoded } from '../producer/encode.ts'
import { isTooLarge } from '../producer/publish-failure.ts'

/** Tried one after the other: characters of each part of the story. */
const ROOMS = [Number.POSITIVE_INFINITY, 200, 0]
const PARTS: readonly string[] = [HEADER.errorMessage, HEADER.errorStack]

/** @param hasShorter there is another copy to try, so that this one's being too large is nobody's failure */
type Send = (copy: Encoded, hasShorter: boolean) => Promise<unknown>

/** @throws what `send` throws, with the shortest story where none fits */
export async function sendWithStory(copy: Encoded, send: Send): Promise<void> {
  for (const room of ROOMS) {
    try {
      await send(room === Number.POSITIVE_INFINITY ? copy : shortened(copy, room), room > 0)
      return
    } catch (error) {
      if (room === 0 || !isTooLarge(error)) throw error
    }
  }
}

function shortened(copy: Encoded, room: number): Encoded {
  const headers = { ...copy.properties.headers }
  for (const part of PARTS) {
    const text = headers[part]
    if (typeof text === 'string' && room > 0) headers[part] = text.slice(0, room)
    else delete headers[part]
  }
  return { ...copy, properties: { ...copy.properties, headers } }
}

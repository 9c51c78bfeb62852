/**
 * Replaces a letter by an edited one. The original is in the archive before the edited one is sent, and goes when that is confirmed. Does
 * NOT promise that it is gone: where the line is lost in that moment both lie there, and the caller is told; where the process dies, nobody.
 */
import { InvalidOption, ResourceMissing } from '../errors.ts'
import { checkOptions, integer, object, text } from '../options.ts'
import { checkReplyTo, type Encoded } from '../producer/encode.ts'
import type { Publisher } from '../producer/publisher.ts'
import { type Chosen, chooser } from './chosen.ts'
import { archiveCopy, editedCopy, type LetterEdit, sameMessage } from './copies.ts'
import { type FullLetter, fullOf } from './full.ts'
import type { Reader } from './reader.ts'
import { compileSelection } from './selection.ts'
import type { Letter } from './story.ts'

/** What an edit left. */
export interface EditedLetter extends FullLetter {
  /**
   * Letters it replaced: more than one where copies of the message lay there (a consumer was killed between a letter and its ack); none
   * where the connection was lost before the broker had taken them away: they may be there still.
   */
  readonly replaced: number
  /** Other letters with this id, of another generation or with another message: they stay. With those that may be there still. */
  readonly remaining: number
}

interface EditParts {
  readonly reader: Reader
  readonly publisher: Publisher
  readonly dead: string
  readonly archive: string
}

const PUBLISH = { mandatory: true, deadlineMs: 30_000 } as const

/** @param onArchived told of the original once the letter is replaced */
export async function editLetter(
  { reader, publisher, dead, archive }: EditParts,
  id: string,
  edit: LetterEdit,
  onArchived: (original: Encoded) => void,
): Promise<EditedLetter> {
  const { chosen, copies, remaining } = await newest(reader, id, dead)
  const { letter, taken } = chosen
  if (edit.generation !== undefined && edit.generation !== letter.generation) throw outdated(letter, edit.generation)
  if (edit.properties?.messageId !== undefined && letter.messageId !== undefined)
    throw new InvalidOption('expected no messageId: this letter has one, and with another it would be another message')
  const copy = editedCopy(taken.raw, dead, edit)
  const archived = archiveCopy(taken.raw, archive)
  // First, so that no failure leaves both versions among the dead letters: a replay would send both.
  await publisher.publish(archived, PUBLISH)
  // Whoever lost the original cannot take it away, and another operator may have it.
  await reader.check()
  await publisher.publish(copy, PUBLISH)
  const acks = [taken.ack, ...copies]
  for (const ack of acks) ack()
  const gone = await isGone(reader)
  onArchived(archived)
  const replaced = gone ? acks.length : 0
  return { ...fullOf(copy), replaced, remaining: remaining + acks.length - replaced }
}

/** An ack that the broker did not take leaves the letter where it was. */
function isGone(reader: Reader): Promise<boolean> {
  return reader.check().then(
    () => true,
    () => false,
  )
}

/** The letter that an edit is of, and the others with its id. */
interface Newest {
  readonly chosen: Chosen
  /** Acks of its copies; not the letters, which may be large. */
  readonly copies: readonly (() => boolean)[]
  readonly remaining: number
}

async function newest(reader: Reader, id: string, queue: string): Promise<Newest> {
  const take = chooser(reader, compileSelection({ ids: [id] }))
  let chosen: Chosen | undefined
  let copies: (() => boolean)[] = []
  let seen = 0
  for (let some = await take(1_000); some.length > 0; some = await take(1_000))
    for (const one of some) {
      seen++
      if (!chosen || one.letter.generation > chosen.letter.generation) {
        chosen = one
        copies = []
      } else if (sameMessage(one.taken.raw, chosen.taken.raw)) copies.push(one.taken.ack)
    }
  if (chosen) return { chosen, copies, remaining: seen - 1 - copies.length }
  throw new ResourceMissing(
    `letter "${id}"`,
    `expected the id of a letter in queue "${queue}", got "${id}": no letter there has it`,
  )
}

function outdated({ id, generation }: Letter, expected: number): ResourceMissing {
  return new ResourceMissing(
    `letter "${id}"`,
    `expected letter "${id}" to be of generation ${expected}, and it is of generation ${generation}: somebody edited it or sent it again meanwhile. Look at it again; nothing was changed`,
  )
}

const EDIT_PROPERTIES = {
  type: text(255),
  contentType: text(255),
  contentEncoding: text(255),
  correlationId: text(255),
  replyTo: text(255),
  messageId: text(255),
}

/** @throws InvalidOption */
export function checkEdit(edit: LetterEdit): void {
  checkOptions('edit()', edit, { body: () => undefined, properties: object, headers: object, generation: integer(0) })
  checkOptions('edit(): properties', edit.properties ?? {}, EDIT_PROPERTIES)
  checkReplyTo(edit.properties?.replyTo)
  for (const name of Object.keys(edit.headers ?? {}))
    if (/^(surehop-|x-death$|x-first-death|x-last-death|transaction_id$)/.test(name))
      throw new InvalidOption(`expected headers of the publisher, got "${name}", which is reserved`)
}

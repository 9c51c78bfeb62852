/**
 * Writes messages as rows of the outbox, with statements that any query tool can run in the caller's transaction.
 *
 * Promises: positions grow in the order given (rows with a key get theirs at commit, in the same order: see
 * `sql/migrations/001-outbox.ts`); no statement carries more than 500 rows or, but for a single larger body, 4 MiB of bodies.
 * Does NOT promise that many rows are written by one statement: outside a transaction some may be there without the rest.
 */
import { type LentClient, runOn, type SqlRow } from '../sql/client.ts'
import { inSchema } from '../sql/schema.ts'
import { type PackedMessage, packed } from './packing.ts'
import type { ReadyMessage } from './prepare.ts'

const MAX_ROWS = 500
const MAX_BYTES = 4 * 1024 * 1024

const INTO =
  'INSERT INTO {schema}.outbox (name, shard, placed, message_id, transaction_id, key, exchange, routing_key, properties, body, deliver_at) VALUES'

/** Where rows are written to. */
export interface Target {
  readonly schema: string
  readonly name: string
}

/**
 * Writes all rows.
 * @returns the id of the transaction that wrote the last one, as Postgres counts them, where `asked`
 */
export async function insert(
  target: Target,
  messages: readonly ReadyMessage[],
  client: LentClient,
  asked: boolean,
): Promise<string | undefined> {
  let rows: readonly SqlRow[] = []
  for (const some of chunks(messages)) {
    const sql = inSchema(target.schema, statementFor(some.length))
    rows = await runOn(
      client,
      asked ? `${sql} RETURNING CAST(xid AS text) AS xid` : sql,
      some.flatMap(parametersOf(target.name)),
    )
  }
  return rows.length > 0 ? String(rows[0]!['xid']) : undefined
}

function* chunks(messages: readonly ReadyMessage[]): Generator<ReadyMessage[]> {
  let some: ReadyMessage[] = []
  let bytes = 0
  for (const message of messages) {
    const size = message.encoded.content.length
    if (some.length === MAX_ROWS || (some.length > 0 && bytes + size > MAX_BYTES)) {
      yield some
      some = []
      bytes = 0
    }
    some.push(message)
    bytes += size
  }
  if (some.length > 0) yield some
}

const COLUMNS = 11

/** The same text for the same number of rows, for drivers that keep prepared statements. */
function statementFor(rows: number): string {
  const row = (_: unknown, i: number) => {
    const plain = Array.from({ length: COLUMNS - 1 }, (_, c) => `$${i * COLUMNS + c + 1}`)
    const delay = `clock_timestamp() + CAST($${(i + 1) * COLUMNS} AS double precision) * interval '1 millisecond'`
    return `(${plain.join(', ')}, ${delay})`
  }
  return `${INTO} ${Array.from({ length: rows }, row).join(', ')}`
}

function parametersOf(name: string) {
  return ({ encoded, key, delayMs }: ReadyMessage): unknown[] => {
    const row: PackedMessage = packed(encoded, key)
    // A row without a key keeps the position it is born with.
    const placed = key === undefined
    const { shard, messageId, transactionId, exchange, routingKey, properties, body } = row
    const ids = [name, shard, placed, messageId, transactionId, key ?? null]
    return [...ids, exchange, routingKey, properties, body, delayMs ?? null]
  }
}

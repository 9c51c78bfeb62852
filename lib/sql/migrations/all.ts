/** All migrations, in order. One that has been released is never changed: a change is a new one. */
import { outboxMigration } from './001-outbox.ts'
import { inboxMigration } from './002-inbox.ts'
import { decisionsMigration } from './003-decisions.ts'

/** One step of the schema. */
export interface Migration {
  /** From 1, without gaps. */
  readonly version: number
  readonly name: string
  /** Statements, with `{schema}` where the schema's name belongs. */
  readonly sql: string
}

export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: 'outbox', sql: outboxMigration },
  { version: 2, name: 'inbox', sql: inboxMigration },
  { version: 3, name: 'decisions', sql: decisionsMigration },
]

/** The version of the schema that this version of the library works with. */
export const LATEST_VERSION = MIGRATIONS.length

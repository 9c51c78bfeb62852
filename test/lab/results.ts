// Writes what a run showed: a table for people, which the README includes, and the figures for programs, a pair of files per release.
//
// A row played by itself takes its place in the table of the last whole run, which says so, and why the row had failed before: to play a
// row until it passes must not go unseen.

import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { type About, type Again, failings, type Played, table } from './table.ts'

const FOLDER = new URL('./results/', import.meta.url)

/** What a run showed. */
export interface Results {
  readonly about: About
  readonly rows: readonly Played[]
}

/** @returns the table's file, from the root of the project */
export async function writeResults({ rows, about }: Results, folder: URL = FOLDER): Promise<string> {
  const name = nameOf(about)
  await mkdir(folder, { recursive: true })
  await writeFile(new URL(`${name}.md`, folder), `${table(rows, about)}\n`)
  await writeFile(new URL(`${name}.json`, folder), `${JSON.stringify({ about, rows }, undefined, 2)}\n`)
  return `test/lab/results/${name}.md`
}

/**
 * The last whole run on this series of RabbitMQ, with these rows in place of its own.
 * @throws Error when there is no such run, or it has no such row
 */
export async function inPlace({ rows, about }: Results, folder: URL = FOLDER): Promise<Results> {
  const whole = await lastRun(nameOf(about), folder)
  const missing = rows.find(({ id }) => !whole.rows.some((row) => row.id === id))
  if (missing)
    throw new Error(`the table of the last run has no row "${missing.id}": play all rows (npm run lab -- --write)`)
  const replaced = (row: Played) => rows.find(({ id }) => id === row.id) ?? row
  const again = [...(whole.about.again ?? []), ...rows.map((row) => againOf(row, whole, about))]
  return { about: { ...whole.about, again }, rows: whole.rows.map(replaced) }
}

function againOf({ id }: Played, whole: Results, { commit, seed, at }: About): Again {
  return { id, commit, seed, at, before: failings(whole.rows.find((row) => row.id === id)!) }
}

async function lastRun(name: string, folder: URL): Promise<Results> {
  try {
    return JSON.parse(await readFile(new URL(`${name}.json`, folder), 'utf8')) as Results
  } catch (cause) {
    throw new Error(`there is no table of ${name} yet: play all rows first (npm run lab -- --write)`, { cause })
  }
}

function nameOf({ versions }: About): string {
  return `rabbitmq-${seriesOf(versions['rabbitmq'] ?? '')}`
}

/** `3.10` of `3.10.8 (three nodes)`, so that a patch release replaces the table of the one before. */
export function seriesOf(version: string): string {
  return /^\d+\.\d+/.exec(version)?.[0] ?? 'unknown'
}

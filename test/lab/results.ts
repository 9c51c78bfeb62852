// Writes what a run showed: a table for people, which the README includes, and the figures for programs, a pair of files per release.

import { mkdir, writeFile } from 'node:fs/promises'
import { type About, type Played, table } from './table.ts'

const FOLDER = new URL('./results/', import.meta.url)

/** @returns the table's file, from the root of the project */
export async function writeResults(rows: readonly Played[], about: About): Promise<string> {
  const name = `rabbitmq-${seriesOf(about.versions['rabbitmq'] ?? '')}`
  await mkdir(FOLDER, { recursive: true })
  await writeFile(new URL(`${name}.md`, FOLDER), `${table(rows, about)}\n`)
  await writeFile(new URL(`${name}.json`, FOLDER), `${JSON.stringify({ about, rows }, undefined, 2)}\n`)
  return `test/lab/results/${name}.md`
}

/** `3.10` of `3.10.8 (three nodes)`, so that a patch release replaces the table of the one before. */
export function seriesOf(version: string): string {
  return /^\d+\.\d+/.exec(version)?.[0] ?? 'unknown'
}

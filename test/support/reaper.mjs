// The reaper: one small process beside each process that starts private services.
//
// Promises: when its standard input closes, for whatever reason (orderly end, crash, kill -9 of the owner), every process
// still guarded is killed, then every command still guarded is run, then every path still guarded is removed.
// Does not promise: anything once it is itself killed with -9.
//
// Plain JavaScript, so that it starts in a few milliseconds. Lines on its input are JSON:
//   { guard: id, group | pid | path | command } and { release: id }

import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { descendantsOf } from './process-tree.mjs'

/** @typedef {{ group?: number, pid?: number, path?: string, command?: string[] }} Guarded */

/** @type {Map<number, Guarded>} */
const guarded = new Map()

/** @param {string} line */
function note(line) {
  const { guard, release, ...what } = JSON.parse(line)
  if (guard !== undefined) guarded.set(guard, what)
  else guarded.delete(release)
}

/** @param {() => void} work */
function regardless(work) {
  try {
    work()
  } catch {
    // Gone already: that is what we wanted.
  }
}

/** @param {Guarded} what */
function kill({ group, pid }) {
  if (group !== undefined) regardless(() => process.kill(-group, 'SIGKILL'))
  if (pid === undefined) return
  // Commands such as mocha do their work in children of their own.
  for (const one of [pid, ...descendantsOf(pid)]) regardless(() => process.kill(one, 'SIGKILL'))
}

function reap() {
  const all = [...guarded.values()].reverse()
  for (const what of all) kill(what)
  for (const { command } of all) if (command) spawnSync(command[0], command.slice(1), { stdio: 'ignore' })
  for (const { path } of all) {
    if (path) regardless(() => rmSync(path, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 }))
  }
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {})
createInterface({ input: process.stdin }).on('line', note).on('close', reap)

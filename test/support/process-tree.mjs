// Processes and their children, by number.
//
// Promises: Linux needs no `ps`; a process that has ended and was not yet waited for does not count as running.
// Does not promise: a child that was born while the table was read.
//
// Plain JavaScript, because the reaper uses it; its types are in `process-tree.d.mts`.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'

/** @param {number} pid @returns {number[]} Children, their children, and so on. */
export function descendantsOf(pid) {
  const table = rows()
  const below = (parent) => table.filter((row) => row.parent === parent).flatMap((row) => [row.pid, ...below(row.pid)])
  return below(pid)
}

/** @param {number} pid */
export function isRunning(pid) {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return error.code !== 'ESRCH'
  }
  return rowOf(pid)?.state !== 'Z'
}

function rows() {
  return existsSync('/proc/self/stat') ? rowsOfProc() : rowsOfPs()
}

function rowsOfProc() {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map((name) => rowOf(Number(name))).filter((row) => row !== undefined)
}

// The second field is the program's name in parentheses, and may hold anything.
function rowOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return { pid, parent: Number(parent), state }
  } catch {
    return undefined
  }
}

function rowsOfPs() {
  const table = spawnSync('ps', ['-eo', 'pid=,ppid='], { encoding: 'utf8' }).stdout ?? ''
  const lines = table.trim().split('\n')
  return lines.map((line) => line.trim().split(/\s+/).map(Number)).map(([pid, parent]) => ({ pid, parent }))
}

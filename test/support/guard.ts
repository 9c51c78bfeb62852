// Guards what must not outlive this process: child processes, data folders, containers.
//
// Promises: whatever was guarded and not released is ended by the reaper (see `reaper.mjs`) as soon as this process is
// gone, however it went. Does not hold the event loop open.

import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'

/** A process group, one process, a path to remove, or a command to run. */
export type Guarded =
  | { readonly group: number }
  | { readonly pid: number }
  | { readonly path: string }
  | { readonly command: readonly string[] }

let reaper: Socket | undefined
let lastId = 0

/** Guards `what` until the returned function is called. */
export function guard(what: Guarded): () => void {
  reaper ??= startReaper()
  const id = ++lastId
  tell({ guard: id, ...what })
  return () => tell({ release: id })
}

function tell(line: object): void {
  reaper?.write(`${JSON.stringify(line)}\n`)
}

function startReaper(): Socket {
  const { NODE_OPTIONS: _options, NODE_V8_COVERAGE: _coverage, ...env } = process.env
  const script = fileURLToPath(new URL('./reaper.mjs', import.meta.url))
  const child = spawn(process.execPath, [script], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
    env,
  })
  child.unref()
  const pipe = child.stdin as Socket
  pipe.on('error', () => {})
  pipe.unref()
  return pipe
}

// The entry of `npm test`, `npm run demo` and `npm run bench`; works as the first command after a clone.
//
//   node test/support/first-run.mjs [--rabbitmq] [--redis] [--postgres] [--services] command [argument...]
//
// Checks the version of Node, installs the packages if they are missing or not those of package-lock.json, and hands over
// to `run.ts`, which brings the services (`--services`: all), runs the command and cleans up. Needs no package itself.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const ROOT = new URL('../../', import.meta.url)
const NEEDED = [20, 19]

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])) return
  fail(`Surehop needs Node ${NEEDED.join('.')} or newer, and this is ${process.version}. See https://nodejs.org`)
}

function checkPackages() {
  if (installed()) return
  console.error('Installing the packages of package-lock.json, once: npm ci')
  const { status, stderr } = npm('pipe', 'ci', '--include=dev', '--loglevel=error')
  if (status === 0) return
  // A registry that lacks a package of another platform is enough for `npm ci` to refuse; `npm install` gets along.
  console.error(`${firstWords(stderr)}\nOnce more, with: npm install --no-save`)
  const { status: again } = npm('inherit', 'install', '--no-save', '--include=dev', '--loglevel=error')
  if (again !== 0) fail('The packages could not be installed; what npm said stands above.')
}

/** @param {'pipe' | 'inherit'} stderr @param {string[]} args */
function npm(stderr, ...args) {
  const options = { cwd: ROOT, stdio: ['ignore', 'ignore', stderr] }
  const script = process.env.npm_execpath
  return script?.endsWith('npm-cli.js')
    ? spawnSync(process.execPath, [script, ...args], options)
    : spawnSync('npm', args, options)
}

/** @param {Buffer | null} said What npm said before it explains its options. */
function firstWords(said) {
  const lines = String(said ?? '')
    .split('\n')
    .filter((line) => /^npm error \S/.test(line) && !/usage|^npm error code/i.test(line))
  return lines.slice(0, 3).join('\n')
}

/** By content, not by time: a checkout touches package-lock.json without changing it. */
function installed() {
  if (!existsSync(new URL('node_modules/.package-lock.json', ROOT))) return false
  const wanted = packagesOf('package-lock.json')
  const present = packagesOf('node_modules/.package-lock.json')
  return Object.entries(wanted).every(
    ([path, { version, optional }]) =>
      path === '' || present[path]?.version === version || (optional && !present[path]),
  )
}

/** @param {string} file @returns {Record<string, { version?: string, optional?: boolean }>} */
function packagesOf(file) {
  return JSON.parse(readFileSync(new URL(file, ROOT), 'utf8')).packages
}

/** @param {string} sentence */
function fail(sentence) {
  console.error(sentence)
  process.exit(1)
}

checkNode()
checkPackages()
const { register } = await import('tsx/esm/api')
register()
await import('./run.ts')

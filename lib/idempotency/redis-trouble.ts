/** What went wrong with Redis, in words that a stranger can act on. No secret gets in: neither a password nor the command's arguments. */

import { StoreUnavailable, textOf } from '../errors.ts'

/** The first pattern that fits the error's text says what to do. */
const advice: readonly (readonly [RegExp, string])[] = [
  [/^Command timed out/, 'it did not answer in time; the command may still be executed'],
  [/^(WRONGPASS|NOAUTH|ERR invalid password|ERR AUTH)/, 'it refuses the login: check user name and password'],
  [/^NOPERM/, 'the user lacks a permission: it needs eval, evalsha and the commands of the store'],
  [/^OOM/, 'it is full: raise maxmemory, or remember for a shorter time'],
  [/^READONLY/, 'it is a replica: connect to the master, or by Sentinel'],
  [/^(MISCONF|NOREPLICAS)/, 'it refuses writes until its persistence or its replicas work again'],
  [/^(TRYAGAIN|ASK|MOVED)\b/, 'a slot of the cluster is being moved: it is asked again until that is done'],
  [/^(LOADING|MASTERDOWN|CLUSTERDOWN|BUSY)/, 'it is not ready to answer'],
  [/^WRONGTYPE/, 'a key of the store holds something else: choose another prefix'],
  [/ECONNREFUSED|ENOENT/, 'nothing listens there: start it, or correct the address'],
  [/ENOTFOUND|EAI_AGAIN/, 'the host name is not known'],
  [/ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|connecting timed out/, 'it cannot be reached'],
  [/certificate|SSL|TLS/i, 'the encrypted connection could not be made'],
]

/** What a node of a cluster answers to a client that knows of one node only. */
const OF_A_CLUSTER = /^(MOVED|ASK|TRYAGAIN|CROSSSLOT)\b/
const GIVE_A_CLUSTER = "it is a node of a cluster: give ioredis' Cluster instead of a URL or a Redis"

/** What ioredis puts before the last answer of a cluster, once it has asked often enough. */
const REDIRECTED = /^Too many Cluster redirections\. Last error: (\w*Error: )?/

/** Of which connection it is said. */
interface Link {
  readonly address: string
  /** The client knows that it speaks to a cluster. */
  readonly isCluster: boolean
  readonly commandTimeoutMs: number
  readonly whileDown: string
}

/** The error a caller gets; its cause keeps name, code and text of the original and nothing else. */
export function explain(error: unknown, { address, isCluster, commandTimeoutMs, whileDown }: Link): StoreUnavailable {
  if (error instanceof StoreUnavailable) return error
  const said = textOfRedis(error)
  const last = said.replace(REDIRECTED, '')
  const lost = !isCluster && OF_A_CLUSTER.test(last)
  const known = lost
    ? GIVE_A_CLUSTER
    : (advice.find(([pattern]) => pattern.test(last))?.[1] ?? 'it gave no certain answer')
  const detail = said.startsWith('Command timed out') ? `waited ${commandTimeoutMs} ms` : said
  const message = `Redis at ${address} cannot be used: ${known} (${detail}). ${whileDown}`
  return new StoreUnavailable(message, { cause: stripped(error, said) })
}

/** ioredis hides the reason of a failed connection in an AggregateError without a text, or in `lastNodeError`. */
function textOfRedis(error: unknown): string {
  const { lastNodeError, errors, code } = (error ?? {}) as {
    lastNodeError?: unknown
    errors?: unknown[]
    code?: unknown
  }
  if (lastNodeError) return `${textOf(error)} ${textOf(lastNodeError)}`
  if (error instanceof Error && error.message === '' && typeof code === 'string') return code
  if (error instanceof Error && error.message === '' && errors?.length) return textOf(errors[0])
  return textOf(error)
}

/** ioredis puts the command with its arguments on the error, for AUTH the password. */
function stripped(error: unknown, said: string): Error {
  const plain = new Error(said)
  if (error instanceof Error) plain.name = error.name
  return plain
}

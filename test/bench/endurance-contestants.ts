/** What is measured of Surehop where peers have nothing of the kind: retry storms, dead letters, memory per id, growth. */

import { type Contest, lazy, rates } from './contest.ts'
import { KINDS, PAGE } from './dead-letters-sizes.ts'
import type { Job } from './job.ts'

const storm = () => import('./retry-storm.ts')
const dead = () => import('./dead-letters.ts')
const shovel = () => import('./dead-letters-by-hand.ts')
const redis = () => import('./redis-memory.ts')
const grows = () => import('./growth.ts')
const surehop = () => import('./publish-surehop.ts')

const prepare = async (job: Job) => (await dead()).prepareLetters(job)
const NONE = { full: 0, quick: 0 }
const LETTERS = { full: 100_000, quick: 5_000 }
const idsAt = (perSecond: number) => lazy(redis, (it) => it.surehopAt(perSecond))

export const endurance: Readonly<Record<string, Contest>> = {
  'retry-storm': {
    title: 'Retry storm: every message fails once, and comes again after a delay of its own',
    note: [
      'Delays from 0.1 s to 60 s, mixed, as many per octave everywhere (`--quick`: to 6 s), asked for with `RetryLater`; the store is Redis. As strong as it is handled: never more than 500 first attempts wait in the queue.',
      'Late: after the time asked for. Beyond the promise: after the time asked for rounded up to four significant bits (at most 12.5 % more, at least 0.1 s), which is what a delay promises. It includes the wait in the work queue.',
      'Failures/s until the last first attempt; CPU per message is that of two attempts and all that lies between.',
    ].join('\n'),
    columns: [
      { head: 'failures/s', figure: 'perSecond' },
      { head: 'early', figure: 'early' },
      { head: 'lost', figure: 'lost' },
      { head: 'twice', figure: 'twice' },
      { head: 'dead letters', figure: 'letters' },
      { head: 'late p50, ms', figure: 'p50Ms' },
      { head: 'p99', figure: 'p99Ms' },
      { head: 'longest', figure: 'maxMs' },
      { head: 'beyond the promise p50, ms', figure: 'beyondP50Ms' },
      { head: 'p99', figure: 'beyondP99Ms' },
      { head: 'longest', figure: 'beyondMaxMs' },
      { head: 'client CPU, µs/message', figure: 'cpuUs' },
      { head: 'peak RSS, MB', figure: 'peakRssMb' },
    ],
    size: { full: 100_000, quick: 5_000 },
    warmup: NONE,
    turns: 1,
    setting: { bodyBytes: 256 },
    contestants: { 'Surehop, Redis store': lazy(storm, (it) => it.retryStorm) },
  },
  'dead-look': {
    title: 'Dead letters: look at them',
    note: `${LETTERS.full.toLocaleString('en-US')} letters of ${KINDS} kinds (\`--quick\`: ${LETTERS.quick.toLocaleString('en-US')}). A page is the oldest ${PAGE}. Grouping reads all of them, and leaves all where they are.`,
    columns: [
      { head: 'count, ms', figure: 'countMs' },
      { head: 'first page, ms', figure: 'pageMs' },
      { head: 'group all, ms', figure: 'groupMs' },
      { head: 'letters/s grouped', figure: 'perSecond' },
      { head: 'client CPU, µs/letter', figure: 'cpuUs' },
      { head: 'peak RSS, MB', figure: 'peakRssMb' },
    ],
    size: LETTERS,
    warmup: NONE,
    turns: 3,
    contestants: { 'Surehop deadLetters()': { prepare, run: lazy(dead, (it) => it.look) } },
  },
  'dead-replay': {
    title: 'Dead letters: send all of them again',
    note: [
      `${LETTERS.full.toLocaleString('en-US')} letters (\`--quick\`: ${LETTERS.quick.toLocaleString('en-US')}), without a limit of rate (the default is 50/s) and without watching their fate. First line: publishing as many new messages.`,
      'By hand: amqplib, prefetch 500, published mandatory, acked when confirmed; it knows no generations, so that a deduplicating consumer drops what it sends.',
    ].join('\n'),
    columns: rates('letter'),
    size: LETTERS,
    warmup: { full: 5_000, quick: 1_000 },
    turns: 3,
    contestants: {
      'Surehop publishMany(), new messages': lazy(surehop, (it) => it.surehopPublishMany),
      'shovel by hand: consume, publish, ack': { prepare, run: lazy(shovel, (it) => it.shovelByHand) },
      'Surehop replay()': { prepare, run: lazy(dead, (it) => it.replay) },
      'Surehop replay(), asking the Redis store': { prepare, run: lazy(dead, (it) => it.replayAskingStore) },
    },
  },
  'redis-memory': {
    title: 'Redis memory per remembered id',
    note: [
      'Growth of `used_memory`, keys and expiry included; remembered for 14 days. Surehop by how many messages there are per second, since it packs ids of one time together, and tidies them up half an hour later.',
      "By hand: `SET <queue>:<id> done PX`. powertools: the record it keeps of a finished run, the queue's name as key prefix.",
    ].join('\n'),
    columns: [
      { head: 'bytes/id as written', figure: 'bytes', compared: true },
      { head: 'bytes/id tidied', figure: 'compactBytes' },
      { head: 'client CPU, µs/id', figure: 'cpuUs' },
    ],
    size: { full: 200_000, quick: 20_000 },
    warmup: NONE,
    turns: 1,
    contestants: {
      'by hand': lazy(redis, (it) => it.byHand),
      '@aws-lambda-powertools/idempotency': lazy(redis, (it) => it.powertools),
      'Surehop, 1/s': idsAt(1),
      'Surehop, 10/s': idsAt(10),
      'Surehop, 100/s': idsAt(100),
      'Surehop, 1,000/s': idsAt(1_000),
      'Surehop, 10,000/s': idsAt(10_000),
      'Surehop, ids that are no UUIDv7': lazy(redis, (it) => it.surehopOtherIds),
    },
  },
  growth: {
    title: 'Growth: publish and consume a million messages with deduplication, in one process',
    note: [
      'At most 2,000 messages are on the way at a time. Tenths of the messages (`--quick`: of 50,000). Heap: after a full collection, before the first message measured and after the last.',
      'Redis: growth of `used_memory` per message, not tidied.',
    ].join('\n'),
    columns: [
      { head: 'messages/s', figure: 'perSecond' },
      { head: 'first tenth', figure: 'firstPerSecond' },
      { head: 'last tenth', figure: 'lastPerSecond' },
      { head: 'last × first', figure: 'lastToFirst' },
      { head: 'RSS after the first tenth, MB', figure: 'firstRssMb' },
      { head: 'after the last', figure: 'lastRssMb' },
      { head: 'heap before, MB', figure: 'firstHeapMb' },
      { head: 'after', figure: 'lastHeapMb' },
      { head: 'client CPU, µs/message', figure: 'cpuUs' },
      { head: 'Redis, bytes/message', figure: 'redisBytes' },
    ],
    size: { full: 1_000_000, quick: 50_000 },
    warmup: { full: 20_000, quick: 5_000 },
    turns: 1,
    setting: { bodyBytes: 256 },
    contestants: { 'Surehop, Redis store': lazy(grows, (it) => it.growth) },
  },
}

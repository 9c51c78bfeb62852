// What Redis and ioredis say, in words to act on.

import { expect } from 'chai'
import { explain } from '../../lib/idempotency/redis-trouble.ts'

const LINK = { address: 'cluster', isCluster: true, commandTimeoutMs: 1_000, whileDown: 'No handler runs.' }
const told = (said: string) => explain(new Error(said), LINK).message

describe('the trouble of Redis', () => {
  it('names a slot that is being moved, by whichever answer of a node, also behind too many redirections', () => {
    const answers = [
      'TRYAGAIN Multiple keys request during rehashing of slot',
      'ASK 1 127.0.0.1:6379',
      'MOVED 1 127.0.0.1:6379',
    ]
    for (const answer of answers)
      for (const said of [answer, `Too many Cluster redirections. Last error: ReplyError: ${answer}`])
        expect(told(said)).to.contain('a slot of the cluster is being moved').and.contain(said)
    for (const answer of ['CLUSTERDOWN The cluster is down', 'LOADING Redis is loading the dataset in memory'])
      expect(told(`Too many Cluster redirections. Last error: ReplyError: ${answer}`)).to.contain('not ready to answer')
  })
})

import { once } from 'node:events'
import { Writable } from 'node:stream'
import { expect } from 'chai'
import { gatherWrites } from '../../lib/connection/gather-writes.ts'

/** A stream that remembers what each system call would have carried. */
function socketWith(calls: string[][]): Writable {
  return new Writable({
    write(chunk, _encoding, done) {
      calls.push([String(chunk)])
      done()
    },
    writev(chunks, done) {
      calls.push(chunks.map(({ chunk }) => String(chunk)))
      done()
    },
  })
}

describe('writes of one turn', () => {
  it('go to the system in one call, in order', async () => {
    const calls: string[][] = []
    const socket = socketWith(calls)
    gatherWrites(socket)
    for (const frame of ['a', 'b', 'c']) socket.write(frame)
    await new Promise(setImmediate)
    expect(calls).to.deep.equal([['a', 'b', 'c']])
  })

  it('have gone before the next turn', async () => {
    const calls: string[][] = []
    const socket = socketWith(calls)
    gatherWrites(socket)
    socket.write('a')
    await new Promise(setImmediate)
    socket.write('b')
    socket.write('c')
    await new Promise(setImmediate)
    expect(calls).to.deep.equal([['a'], ['b', 'c']])
  })

  it('still say when the stream is full, and drain', async () => {
    const socket = socketWith([])
    gatherWrites(socket)
    expect(socket.write('x'.repeat(socket.writableHighWaterMark))).to.equal(false)
    await once(socket, 'drain')
  })

  it('are not lost when the stream ends in the same turn', async () => {
    const calls: string[][] = []
    const socket = socketWith(calls)
    gatherWrites(socket)
    socket.write('a')
    socket.write('b')
    socket.end('c')
    await once(socket, 'finish')
    expect(calls.flat()).to.deep.equal(['a', 'b', 'c'])
  })

  it('call back as before', async () => {
    const socket = socketWith([])
    gatherWrites(socket)
    await new Promise<void>((resolve, reject) => socket.write('a', (error) => (error ? reject(error) : resolve())))
  })
})

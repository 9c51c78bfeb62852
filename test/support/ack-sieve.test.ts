import { expect } from 'chai'
import { AckSieve } from './ack-sieve.ts'

const HEADER = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1')
const [ACK, NACK, REJECT, DELIVER] = [method(60, 80), method(60, 120), method(60, 90), method(60, 60)]
const BODY = frame(3, Buffer.from('a body with the bytes of an ack: \x01\x00\x01'))
const HEARTBEAT = frame(8, Buffer.alloc(0))

function frame(type: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(7)
  head.writeUInt8(type)
  head.writeUInt16BE(1, 1)
  head.writeUInt32BE(payload.length, 3)
  return Buffer.concat([head, payload, Buffer.from([0xce])])
}

function method(ofClass: number, id: number): Buffer {
  const payload = Buffer.alloc(13)
  payload.writeUInt16BE(ofClass)
  payload.writeUInt16BE(id, 2)
  return frame(1, payload)
}

describe('sieve of acks', () => {
  let taken = 0

  beforeEach(() => {
    taken = 0
  })

  function sieve(): AckSieve {
    return new AckSieve('to-server', () => taken++)
  }

  it('takes out acks and nothing else, however the bytes are cut up', () => {
    const flow = Buffer.concat([HEADER, DELIVER, ACK, BODY, NACK, HEARTBEAT, REJECT, DELIVER])
    for (let length = 1; length <= flow.length; length++) {
      const [one, parts] = [sieve(), []] as [AckSieve, Buffer[]]
      taken = 0
      for (let at = 0; at < flow.length; at += length) parts.push(one.sift(flow.subarray(at, at + length), true))
      const rest = Buffer.concat([HEADER, DELIVER, BODY, HEARTBEAT, DELIVER])
      expect(Buffer.concat(parts).equals(rest), `in pieces of ${length}`).to.equal(true)
      expect(taken).to.equal(3)
    }
  })

  it('lets every byte go on at once while it is off', () => {
    const flow = Buffer.concat([HEADER, DELIVER, ACK, BODY])
    const one = sieve()
    for (const byte of flow) expect([...one.sift(Buffer.from([byte]), false)]).to.deep.equal([byte])
  })

  it('may be turned on and off anywhere: what goes on are whole frames, and all that are no acks', () => {
    const flow = Buffer.concat([HEADER, DELIVER, ACK, BODY, ACK])
    const before = [HEADER, DELIVER].reduce((sum, { length }) => sum + length, 0)
    for (let on = 0; on <= flow.length; on++) {
      for (let off = on; off <= flow.length; off++) {
        const one = sieve()
        const parts = [flow.subarray(0, on), flow.subarray(on, off), flow.subarray(off)]
        const gone = Buffer.concat(parts.map((part, i) => one.sift(part, i === 1)))
        const [first, second] = [
          on <= before && off >= before + ACK.length,
          on <= flow.length - ACK.length && off === flow.length,
        ]
        const left = [HEADER, DELIVER, first ? [] : ACK, BODY, second ? [] : ACK].flat() as Buffer[]
        expect(gone.equals(Buffer.concat(left)), `on from ${on} to ${off}`).to.equal(true)
      }
    }
  })

  it('passes what is not AMQP as it is', () => {
    const text = Buffer.from('GET / HTTP/1.1\r\nHost: example.org\r\n\r\n')
    const one = sieve()
    const parts = [...text].map((byte) => one.sift(Buffer.from([byte]), true))
    expect(Buffer.concat(parts).toString()).to.equal(text.toString())
    expect(one.sift(ACK, true).equals(ACK)).to.equal(true)
  })
})

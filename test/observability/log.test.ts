/** What the log says, and what it never says. */
import { expect } from 'chai'
import { pino } from 'pino'
import { type EventName, Events, onEvent } from '../../lib/observability/events.ts'
import { type Logger, logEvents } from '../../lib/observability/log.ts'

interface Line {
  readonly level: string
  readonly text: string
  readonly fields: Record<string, unknown>
}

function recorder(least = 'debug'): { lines: Line[]; logger: Logger } {
  const order = ['debug', 'info', 'warn', 'error']
  const lines: Line[] = []
  const at = (level: string) => (fields: object, text: string) =>
    void lines.push({ level, text, fields: fields as Record<string, unknown> })
  const logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    isLevelEnabled: (level: string) => order.indexOf(level) >= order.indexOf(least),
  }
  return { lines, logger }
}

const run = { messageId: 'm', transactionId: 't', queue: 'q', type: undefined, attempt: 1, generation: 0 }
const state = { role: 'publish', url: undefined }

describe('the log', () => {
  let end = () => {}
  afterEach(() => end())

  it('names the type, text and frames of what a handler threw, and nothing the error carries besides', () => {
    const { lines, logger } = recorder()
    const events = new Events('a')
    end = logEvents('a', logger)
    const error = Object.assign(new TypeError('no sku'), { body: { card: '4111' } })
    events.emit('message.failed', { ...run, error, durationMs: 0.333_570_000_4 })
    const [line] = lines
    expect(line).to.include({ level: 'warn', text: 'surehop message.failed' })
    expect(line?.fields).to.include({ errorType: 'TypeError', error: 'no sku', durationMs: 0.334, messageId: 'm' })
    expect(line?.fields['stack']).to.include('log.test.ts')
    expect(JSON.stringify(lines)).not.to.include('4111')
  })

  it('shows nothing of what was thrown and is no error: it may be the message', () => {
    const { lines, logger } = recorder()
    end = logEvents('a', logger)
    const thrown = { body: { card: '4111' }, headers: { authorization: '4111' } }
    new Events('a').emit('message.failed', { ...run, error: thrown, durationMs: 1 })
    new Events('a').emit('message.failed', { ...run, error: 'out of stock', durationMs: 1 })
    expect(lines[0]?.fields).to.include({ errorType: 'object', messageId: 'm' })
    expect(lines[0]?.fields['error']).to.contain('no error was thrown')
    expect(lines[1]?.fields).to.include({ error: 'out of stock' })
    expect(JSON.stringify(lines)).not.to.include('4111')
  })

  it('warns of what breaks off, also where only warnings are wanted, and calls an end for good an error', () => {
    const { lines, logger } = recorder('warn')
    const events = new Events('a')
    end = logEvents('a', logger)
    events.emit('connection.state', { ...state, from: 'connecting', to: 'open', error: undefined })
    events.emit('connection.state', { ...state, from: 'open', to: 'connecting', error: new Error('ECONNRESET') })
    events.emit('connection.state', { ...state, from: 'connecting', to: 'failed', error: new Error('refused') })
    const worth = lines.filter(({ level }) => level !== 'info').map(({ level, fields }) => [level, fields['error']])
    expect(worth).to.deep.equal([
      ['warn', 'ECONNRESET'],
      ['error', 'refused'],
    ])
  })

  it('is written by pino as it is, at pino’s levels', () => {
    const written: Record<string, unknown>[] = []
    end = logEvents('a', pino({ level: 'info' }, { write: (line: string) => void written.push(JSON.parse(line)) }))
    const events = new Events('a')
    events.emit('channel.state', { role: 'publish', from: 'opening', to: 'open', error: undefined })
    events.emit('message.dead-lettered', { ...run, reason: 'failed 8 times', error: new Error('no') })
    expect(written).to.have.length(1)
    expect(written[0]).to.include({
      level: 50,
      msg: 'surehop message.dead-lettered',
      reason: 'failed 8 times',
      error: 'no',
    })
  })

  it('holds only its own instance', () => {
    const { lines, logger } = recorder()
    end = logEvents('a', logger)
    new Events('b').emit('connection.unblocked', { role: 'publish' })
    expect(lines).to.deep.equal([])
  })
})

describe('onEvent', () => {
  it('refuses a name that would never be heard of, with a guess', () => {
    const mistyped = () => onEvent('message.complete' as EventName, () => {})
    expect(mistyped).to.throw('onEvent(): unknown event "message.complete", did you mean "message.completed"?')
  })
})

// Faults of the network between the processes and the brokers: cut, half-open, silent, slow, narrow.

import type { TcpProxy } from '../../support/tcp-proxy.ts'
import type { Random } from '../random.ts'
import type { Fault, Injection, World } from '../world.ts'
import { at, hold, NODES, nodesInUse, seconds, span, untilTheseEnd } from './held.ts'

/** Heartbeats of 10 s notice after two to three of them. */
const NOTICED_WITHIN_MS = 35_000

export const networkFaults: readonly Fault[] = [
  // As when a process on the way dies: ECONNRESET in the middle of frames.
  cuts('cut-rst', 'connections to the brokers reset (RST)', 'rst'),
  // As an idle firewall or a proxy's redeployment ends them: end of stream without a word of AMQP.
  cuts('cut-fin', 'connections to the brokers ended (FIN)', 'fin'),
  // What the processes send is lost and nobody is told: publishes and acks vanish until heartbeats notice.
  halfOpen('half-open-to-server', 'half-open links, bytes to the broker lost', 'to-server'),
  // What the broker sends is lost: deliveries and confirms vanish until heartbeats notice.
  halfOpen('half-open-to-client', 'half-open links, bytes from the broker lost', 'to-client'),
  // Stored, and nobody is told: publishes are unknown, and repeated with the same ids.
  onAll('confirms-lost', 'publisher confirms lost on the way', 3_000, 8_000, (proxy) => proxy.swallowAcks('to-client')),
  // Handled and recorded, but the broker never hears of it: it delivers again what was done.
  onAll('acks-lost', "consumers' acks lost on the way", 3_000, 8_000, (proxy) => proxy.swallowAcks('to-server')),
  slow(),
  narrow(),
]

function cuts(id: string, name: string, how: 'rst' | 'fin'): Fault {
  return {
    id,
    name,
    touches: 'broker-network',
    provokes: ['unmoored'],
    deal(random: Random) {
      const [times, everyMs] = [random.between(1, 5), span(random, 100, 1_500)]
      const inject = async ({ brokerProxies }: World) => {
        for (let cut = 0; cut < times; cut++) {
          for (const proxy of brokerProxies) proxy.cut(how)
          await hold(everyMs)
        }
      }
      return { choices: `${times} times, every ${seconds(everyMs)}`, inject }
    },
  }
}

function halfOpen(id: string, name: string, direction: 'to-server' | 'to-client'): Fault {
  return {
    id,
    name,
    touches: 'broker-network',
    provokes: ['unmoored'],
    deal(random: Random) {
      const which = random.between(0, NODES - 1)
      const inject = async (world: World) => {
        const proxy = world.brokerProxies[at(which, await nodesInUse(world))]!
        proxy.swallow(direction)
        await untilTheseEnd(proxy, NOTICED_WITHIN_MS)
        await mended([proxy])
      }
      return { choices: `link ${which + 1} of those in use`, inject }
    },
  }
}

function onAll(
  id: string,
  name: string,
  leastMs: number,
  mostMs: number,
  begin: (proxy: TcpProxy) => void,
  after: (proxies: readonly TcpProxy[]) => Promise<void> = mended,
): Fault {
  return { id, name, touches: 'broker-network', deal: (random) => during(span(random, leastMs, mostMs), begin, after) }
}

// Longer than a round trip of anything: confirms come late, heartbeats too.
function slow(): Fault {
  return {
    id: 'slow-link',
    name: 'slow links to the brokers',
    touches: 'broker-network',
    deal(random: Random) {
      const [delayMs, ms] = [random.between(20, 400), span(random, 3_000, 8_000)]
      const { choices, inject } = during(ms, (proxy) => proxy.delay(delayMs), resumed)
      return { choices: `${delayMs} ms each way, ${choices}`, inject }
    },
  }
}

// Everything waits behind everything: the socket buffers fill, and publishing has to wait.
function narrow(): Fault {
  return {
    id: 'narrow-link',
    name: 'narrow links to the brokers',
    touches: 'broker-network',
    deal(random: Random) {
      const [kib, ms] = [random.between(16, 128), span(random, 3_000, 8_000)]
      const { choices, inject } = during(ms, (proxy) => proxy.throttle(kib * 1_024), resumed)
      return { choices: `${kib} KiB/s each way, ${choices}`, inject }
    },
  }
}

function during(
  ms: number,
  begin: (proxy: TcpProxy) => void,
  after: (proxies: readonly TcpProxy[]) => Promise<void>,
): Injection {
  const inject = async ({ brokerProxies }: World) => {
    for (const proxy of brokerProxies) begin(proxy)
    await hold(ms).finally(() => after(brokerProxies))
  }
  return { choices: seconds(ms), inject }
}

async function resumed(proxies: readonly TcpProxy[]): Promise<void> {
  await Promise.all(proxies.map((proxy) => proxy.resume()))
}

/** Bytes were lost: those connections cannot be believed any more. */
async function mended(proxies: readonly TcpProxy[]): Promise<void> {
  for (const proxy of proxies) proxy.cut()
  await resumed(proxies)
}

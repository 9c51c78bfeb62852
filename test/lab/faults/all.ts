// Every fault of the lab, in the order of the table.

import type { Fault } from '../world.ts'
import { brokerFaults } from './broker.ts'
import { castFaults } from './cast.ts'
import { networkFaults } from './network.ts'
import { postgresFaults } from './postgres.ts'
import { processFaults } from './processes.ts'
import { redisFaults } from './redis.ts'

export const allFaults: readonly Fault[] = [
  ...processFaults,
  ...brokerFaults,
  ...networkFaults,
  ...redisFaults,
  ...postgresFaults,
  ...castFaults,
]

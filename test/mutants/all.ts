// All mutants, in the order they are tried.

import { endsMutants } from './ends.ts'
import { guaranteeMutants } from './guarantees.ts'
import { idempotencyMutants } from './idempotency.ts'
import type { Mutant } from './mutant.ts'

export const mutants: readonly Mutant[] = [...idempotencyMutants, ...endsMutants, ...guaranteeMutants]

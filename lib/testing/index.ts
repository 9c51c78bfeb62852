/** For those who write their own backend: the suites that ours pass. No test framework is needed to import this. */

export {
  type ContractCase,
  type IdempotencyStoreContractOptions,
  idempotencyStoreContract,
} from './idempotency-store-contract.ts'

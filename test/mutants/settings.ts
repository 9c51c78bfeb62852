// Loaded before the tests of a mutant: the choices of random tests come from a seed, and a failure is not made smaller, which takes long.

import { createRequire } from 'node:module'
import fc from 'fast-check'

const settings = { seed: Number(process.env['MUTANTS_SEED'] ?? 1), endOnFailure: true, includeErrorInReport: true }

// Its two builds, for import and for require, do not know each other; which one tests get is up to their loader.
fc.configureGlobal(settings)
;(createRequire(import.meta.url)('fast-check') as typeof fc).configureGlobal(settings)

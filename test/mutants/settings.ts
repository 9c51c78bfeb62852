// Loaded before the tests of a mutant: the choices of random tests come from a seed, and a failure is not made smaller, which takes long.

import fc from 'fast-check'

fc.configureGlobal({ seed: Number(process.env['MUTANTS_SEED'] ?? 1), endOnFailure: true })

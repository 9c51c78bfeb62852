// The usual report, and at its end every test that passed only at its second try, with what failed at the first.
//
// A busy machine may be late for a test that waits for real servers, and that is no fault of the code; a race shows in the same way. So
// a second try keeps the run useful, and nothing is hidden.

import Mocha from 'mocha'

/** mocha's spec reporter that also names what was tried again. */
export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options?: Mocha.MochaOptions) {
    super(runner, options)
    const again: string[] = []
    runner.on('retry', (test: Mocha.Test, error: Error) => {
      again.push(`  ${test.fullTitle()}\n    ${String(error?.stack ?? error).replaceAll('\n', '\n    ')}`)
    })
    runner.once('end', () => {
      if (again.length > 0) console.log(`Tried a second time, since the first one failed:\n\n${again.join('\n\n')}\n`)
    })
  }
}

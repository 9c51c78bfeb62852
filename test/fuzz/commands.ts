// Runs many commands of `surehop` in one process, as on a terminal of 100 columns: argument lists come as lines of JSON on stdin,
// and after what each prints comes a line with its exit code. Started by `world.ts`.

import { createInterface } from 'node:readline'
import { deadCommand } from '../../bin/commands/dead.ts'
import { doctorCommand } from '../../bin/commands/doctor.ts'
import { outboxCommand } from '../../bin/commands/outbox.ts'
import { transactionsCommand } from '../../bin/commands/transactions.ts'
import { explained } from '../../bin/explained.ts'

const COMMANDS = { dead: deadCommand, doctor: doctorCommand, outbox: outboxCommand, transactions: transactionsCommand }

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line) as [keyof typeof COMMANDS, ...string[]]
  process.exitCode = 0
  try {
    await COMMANDS[name]().parseAsync(args, { from: 'user' })
  } catch (error) {
    process.exitCode = explained(error)
  }
  process.stdout.write(`\0end ${process.exitCode}\n`)
}

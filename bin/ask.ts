/** Asks before something is changed; without a person to ask, `--yes` must have been said. */
import { confirm, isCancel } from '@clack/prompts'
import { InvalidOption } from '../lib/index.ts'
import type { Session } from './session.ts'

/** The person pressed Ctrl-C at the question: nothing was done. */
export class Declined extends Error {}

/**
 * @returns whether to go on
 * @throws InvalidOption where nobody can be asked; Declined at Ctrl-C
 */
export async function confirmed(
  { output, interrupted }: Pick<Session, 'output' | 'interrupted'>,
  question: string,
  yes: boolean,
): Promise<boolean> {
  if (yes) return true
  if (!output.interactive)
    throw new InvalidOption('nobody can be asked here (no terminal): say --yes to go on, or --dry-run to look only')
  const { stderr } = output
  const answer = await confirm({ message: question, initialValue: false, output: stderr, signal: interrupted })
  if (isCancel(answer)) throw new Declined('interrupted, nothing was done')
  return answer
}

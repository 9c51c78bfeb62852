/**
 * A text that a person changes in an editor: a file in a folder that only he can read. It holds a message, so it is removed when it was
 * used, or is as it was; it holds his work, so it is kept where that came to nothing, or goes on in the editor, and he is told where.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Output } from './terminal.ts'

export class Draft {
  readonly file: string
  readonly #folder: string
  readonly #text: string
  readonly #output: Output
  readonly #leave = () => this.leave()
  #open = false

  constructor(name: string, text: string, output: Output) {
    this.#folder = mkdtempSync(join(tmpdir(), 'surehop-edit-'))
    this.file = join(this.#folder, name)
    this.#text = text
    this.#output = output
    writeFileSync(this.file, text, { mode: 0o600 })
    process.once('exit', this.#leave)
  }

  /** Lends it to an editor. @returns what that left */
  async edit(run: (file: string) => Promise<void>): Promise<Buffer> {
    this.#open = true
    try {
      await run(this.file)
    } finally {
      this.#open = false
    }
    return readFileSync(this.file)
  }

  /** Its text was used, or is not wanted. */
  remove(): void {
    process.off('exit', this.#leave)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Keeps what was changed, what an editor that was killed left beside it, and what one has open that outlives us. */
  leave(): void {
    if (!this.#open && !this.#changed()) {
      this.remove()
      return
    }
    process.off('exit', this.#leave)
    this.#output.note(
      `What was edited is kept in ${this.#folder}: it holds the message, so remove it when it is not needed.`,
    )
  }

  #changed(): boolean {
    try {
      return readdirSync(this.#folder).length > 1 || readFileSync(this.file, 'utf8') !== this.#text
    } catch {
      return false
    }
  }
}

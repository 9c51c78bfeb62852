// What the tests of this room share.

/** What a promise rejects with; an error of its own when it does not. */
export async function caught(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  throw new Error('expected a rejection, and it resolved')
}

/** Validates bodies with any schema of the Standard Schema interface (https://standardschema.dev): zod, valibot, arktype... */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { MessageInvalid } from './errors.ts'

/** Any Standard Schema whose output is `Body`. */
export type Schema<Body = unknown> = StandardSchemaV1<unknown, Body>

/**
 * Checks a body and gives the schema's output.
 * @param bounded how to wait for a schema that does not answer at once; default: for as long as it takes
 * @throws MessageInvalid with the path of the first mistake, e.g. `body.lines[2].quantity`
 */
export async function validate<Body>(
  schema: Schema<Body>,
  body: unknown,
  bounded: <T>(answer: Promise<T>) => Promise<T> = (answer) => answer,
): Promise<Body> {
  const answer = schema['~standard'].validate(body)
  const result = isThenable(answer) ? await bounded(Promise.resolve(answer)) : answer
  if (!result.issues) return result.value
  const [issue] = result.issues
  const path = `body${(issue?.path ?? []).map(step).join('')}`
  const more = result.issues.length > 1 ? ` (and ${result.issues.length - 1} more)` : ''
  throw new MessageInvalid(path, `${path}: ${issue?.message ?? 'does not fit the schema'}${more}`)
}

/** Also of another library or realm: taken for an answer, it would be one without a value, and the body lost. */
function isThenable<T>(answer: T | Promise<T>): answer is Promise<T> {
  return typeof (answer as Partial<Promise<T>> | undefined)?.then === 'function'
}

function step(segment: PropertyKey | StandardSchemaV1.PathSegment): string {
  const key = typeof segment === 'object' ? segment.key : segment
  return typeof key === 'number' ? `[${key}]` : `.${String(key)}`
}

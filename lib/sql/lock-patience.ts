/**
 * How long a statement of Surehop's own waits for a row that somebody else has locked. Given up on by its caller alone, it would wait
 * on at the server and keep its connection, and one forgotten transaction (a row changed by hand, no COMMIT) would take the
 * pool's connections one after another.
 */

/**
 * A condition that is always true. The statement that has it ends with an error (55P03) after 2 s at a lock, unless its transaction,
 * role or database says something else. Postgres evaluates it before it locks anything: it depends on no row.
 */
export const LOCK_PATIENCE = `(SELECT set_config('lock_timeout', CASE current_setting('lock_timeout') WHEN '0' THEN '2s'
  ELSE current_setting('lock_timeout') END, true)) IS NOT NULL`

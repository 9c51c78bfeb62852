// What it costs the claims of the Postgres inbox to remove what has expired.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { v7 } from 'uuid'
import type { Claim, Scope } from '../../lib/idempotency/idempotency.ts'
import { eventually } from '../support/eventually.ts'
import { sharedInbox } from './postgres-under-test.ts'

/** So long each removal takes, ms. */
const SLOW_MS = 250

describe('the Postgres inbox that removes what has expired', function () {
  this.timeout(60_000)
  const inbox = sharedInbox()

  it('takes at most a tenth of the time for it, where it is slow and there is always more', async () => {
    const { pool, schema } = inbox
    await pool.query(
      `INSERT INTO ${schema}.inbox (scope, id, state, retention, expires_at)
       SELECT 'expired', n, 'completed', interval '1 s', now() - interval '1 hour' FROM generate_series(1, 20000) n`,
    )
    await pool.query(`CREATE TABLE ${schema}.sweeps (at timestamptz);
      CREATE FUNCTION ${schema}.slowly() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO ${schema}.sweeps VALUES (clock_timestamp());
          PERFORM pg_sleep(${SLOW_MS / 1_000});
          RETURN NULL;
        END $$;
      CREATE TRIGGER slowly BEFORE DELETE ON ${schema}.inbox FOR EACH STATEMENT EXECUTE FUNCTION ${schema}.slowly()`)
    const scope: Scope = { name: randomUUID(), retentionMs: 600_000, leaseMs: 60_000, maxStarts: 3 }
    await using store = inbox.open()
    let sequence = 0
    const pauseMs = await eventually(
      async () => {
        const claim: Claim = { id: v7(), digest: undefined, generation: 0, attempt: 1, sequence: ++sequence }
        await store.claim(scope, 'a', [claim])
        const { rows } = await pool.query(
          `SELECT extract(epoch FROM at) * 1000 AS ms FROM ${schema}.sweeps ORDER BY at`,
        )
        expect(rows.length).to.be.at.least(2)
        return Number(rows[1].ms) - Number(rows[0].ms)
      },
      { withinMs: 30_000 },
    )
    expect(pauseMs).to.be.at.least(9 * SLOW_MS)
    await pool.query(`DROP TRIGGER slowly ON ${schema}.inbox`)
  })
})

/**
 * Migration 2: the inbox, one row per message id and scope, and one per owner. What the columns mean, and how they may change, is
 * said by `idempotency/record.ts`; here they are only kept.
 *
 * Texts that Postgres cannot keep or index as they are stand here as hashes (`idempotency/postgres-rows.ts`). They are compared
 * byte by byte, so that the order in which rows are locked depends on nobody's locale.
 */
export const inboxMigration = `
CREATE TABLE {schema}.inbox (
  scope        text        COLLATE "C" NOT NULL,
  id           text        COLLATE "C" NOT NULL,
  -- absent only between the two statements of one transaction.
  state        text        NOT NULL CHECK (state IN ('absent', 'leased', 'released', 'completed', 'dead')),
  owner        text,
  sequence     bigint,
  fence        bigint      NOT NULL DEFAULT 0,
  attempt      integer     NOT NULL DEFAULT 0,
  generation   integer     NOT NULL DEFAULT 0,
  starts       integer     NOT NULL DEFAULT 0,
  exhausted    boolean     NOT NULL DEFAULT false,
  -- How a released record was released: failed or returned.
  released_by  text,
  digest       bytea,
  completed_at timestamptz,
  -- So that whoever ends it knows how long it is to be remembered.
  retention    interval    NOT NULL,
  expires_at   timestamptz NOT NULL,
  PRIMARY KEY (scope, id)
  -- Room on each page for the two changes that a row usually sees: they touch no index then.
) WITH (fillfactor = 70);

CREATE INDEX inbox_expires ON {schema}.inbox (expires_at);

-- Rounded up to a thousandth of the retention, so that the changes of one record rarely change an indexed column.
CREATE FUNCTION {schema}.inbox_expiry(retention interval) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
  SELECT to_timestamp(ceil(extract(epoch FROM clock_timestamp() + retention) / extract(epoch FROM retention) * 1000)
    * extract(epoch FROM retention) / 1000)
$$;

CREATE TABLE {schema}.inbox_owners (
  scope  text        COLLATE "C" NOT NULL,
  owner  text        COLLATE "C" NOT NULL,
  until  timestamptz NOT NULL,
  -- Since when it has been there without a gap: another one than it remembers tells an owner that it was away.
  since  timestamptz NOT NULL,
  PRIMARY KEY (scope, owner)
);
`

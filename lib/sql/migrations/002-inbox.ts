/**
 * Migration 2: the inbox, one row per message id and scope, and one per owner. What the columns mean, and how they may change, is
 * said by `idempotency/record.ts`; here they are only kept.
 */
export const inboxMigration = `
CREATE TABLE {schema}.inbox (
  scope        text        NOT NULL,
  id           text        NOT NULL,
  -- absent only between the two statements of one claim.
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
);

CREATE INDEX inbox_expires ON {schema}.inbox (expires_at);

CREATE TABLE {schema}.inbox_owners (
  scope  text        NOT NULL,
  owner  text        NOT NULL,
  until  timestamptz NOT NULL,
  -- Its lease ran out, and it was not told yet.
  lapsed boolean     NOT NULL DEFAULT false,
  PRIMARY KEY (scope, owner)
);
`

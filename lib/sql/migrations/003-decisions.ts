/**
 * Migration 3: the decisions of transactional (half) messages. One row per transaction once it is decided or was checked; the first
 * decision stays. A service that keeps its data in the same database may write its decision in its own transaction: until that
 * ends, the primary key makes every other decider wait.
 */
export const decisionsMigration = `
CREATE TABLE {schema}.decisions (
  name           text        NOT NULL,
  transaction_id text        NOT NULL,
  -- Null: checked, not decided.
  decision       text        CHECK (decision IN ('committed', 'rolled-back')),
  decided_at     timestamptz,
  -- Who decided: service, check, operator.
  decided_by     text,
  -- The half message whose messages have all been confirmed.
  published      text,
  checks         integer     NOT NULL DEFAULT 0,
  expires_at     timestamptz NOT NULL,
  PRIMARY KEY (name, transaction_id),
  CHECK ((decision IS NULL) = (decided_at IS NULL)),
  CHECK (published IS NULL OR decision = 'committed')
);

CREATE INDEX decisions_expires ON {schema}.decisions (expires_at);
`

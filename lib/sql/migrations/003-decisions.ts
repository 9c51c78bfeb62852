/**
 * Migration 3: the decisions of transactional (half) messages. One row per transaction once it is decided or was checked; the first
 * decision stays. A service that keeps its data in the same database may write its decision in its own transaction.
 */
export const decisionsMigration = `
CREATE TABLE {schema}.decisions (
  name           text        NOT NULL,
  transaction_id text        NOT NULL,
  -- Null: checked, not decided.
  decision       text        CHECK (decision IN ('committed', 'rolled-back')),
  decided_at     timestamptz,
  -- Who decided: run, check, operator.
  decided_by     text,
  -- When all its messages had been confirmed.
  published_at   timestamptz,
  checks         integer     NOT NULL DEFAULT 0,
  expires_at     timestamptz NOT NULL,
  PRIMARY KEY (name, transaction_id)
);

CREATE INDEX decisions_expires ON {schema}.decisions (expires_at);
`

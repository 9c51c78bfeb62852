/**
 * Migration 1: the outbox.
 *
 * A row's `position` is its place in the order of its key. A sequence number taken at INSERT is no commit order: of two
 * transactions the one that inserted later may commit first. So rows with a key get their position at commit: a deferred
 * constraint trigger takes a lock of the key (bucketed: at most 1,024 locks per transaction, always in one order, so that two
 * transactions never wait for each other in a circle) and numbers the rows; Postgres gives the lock back after the commit has become
 * visible. Hence, per key: a lower position was committed earlier, and whoever sees a row sees all rows before it. No long
 * transaction elsewhere holds the relay back, as it would with the snapshot's horizon, and writers of one key wait for each other
 * only for the moment of their commits.
 *
 * Does NOT keep two transactions from waiting for each other in a circle where one says SET CONSTRAINTS ALL IMMEDIATE, or adds rows
 * in a deferred trigger of its own: it then takes its locks in more than one go. Postgres ends one of the two (deadlock detected).
 *
 *   ready -> sent | held | parked; held -> sent | parked; parked -> held (an operator's retry); ready, held -> parked (an operator)
 *
 * How the rows of one key are held in order, and what a relay does for that now and then, is said in `outbox/heads.ts`.
 */
export const outboxMigration = `
CREATE SEQUENCE {schema}.outbox_position;

CREATE TABLE {schema}.outbox (
  position       bigint      NOT NULL DEFAULT nextval('{schema}.outbox_position') PRIMARY KEY,
  -- Which outbox of this schema; normally the service's name.
  name           text        NOT NULL,
  -- Which share of the work: relays divide the shards among them. From the key, so that a key has one relay.
  shard          smallint    NOT NULL,
  -- ready: to be sent. held: waits for not_before, or (infinity) behind another row of its key. parked: given up on. sent: kept for a while.
  state          text        NOT NULL DEFAULT 'ready' CHECK (state IN ('ready', 'held', 'parked', 'sent')),
  -- False until the commit of its transaction: the trigger below numbers it.
  placed         boolean     NOT NULL,
  xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
  message_id     text        NOT NULL,
  transaction_id text        NOT NULL,
  key            text,
  exchange       text        NOT NULL,
  routing_key    text        NOT NULL,
  -- The AMQP properties and headers, packed (see outbox/packing.ts).
  properties     text        NOT NULL,
  body           bytea       NOT NULL,
  -- Not to be delivered before; null: at once.
  deliver_at     timestamptz,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  attempts       integer     NOT NULL DEFAULT 0,
  not_before     timestamptz,
  last_error     text,
  ended_at       timestamptz
);

CREATE INDEX outbox_ready  ON {schema}.outbox (name, position) WHERE state = 'ready';
CREATE INDEX outbox_held   ON {schema}.outbox (name, key, position) WHERE state = 'held';
CREATE INDEX outbox_due    ON {schema}.outbox (name, not_before) WHERE state = 'held';
CREATE INDEX outbox_parked ON {schema}.outbox (name, position) WHERE state = 'parked';
CREATE INDEX outbox_sent   ON {schema}.outbox (name, ended_at) WHERE state = 'sent';
CREATE INDEX outbox_unplaced ON {schema}.outbox (xid) WHERE NOT placed;

-- A session keeps its plans: one made while the table was small must be no walk over a backlog later. Hence the settings, and OFFSET 0,
-- which leaves only the index of the rows without a place.
CREATE FUNCTION {schema}.outbox_take_places() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  waits boolean;
  place bigint;
  bucket integer;
BEGIN
  -- Fires once per row; the first time numbers all rows of the transaction.
  SELECT NOT placed INTO waits FROM {schema}.outbox WHERE position = NEW.position;
  IF waits IS NOT TRUE THEN RETURN NULL; END IF;
  FOR bucket IN
    SELECT DISTINCT hashtext(name || chr(10) || key) & 1023 FROM {schema}.outbox
    WHERE xid = pg_current_xact_id() AND NOT placed ORDER BY 1
  LOOP
    PERFORM pg_advisory_xact_lock(hashtext('{schema}.outbox'), bucket);
  END LOOP;
  FOR place IN
    SELECT position FROM (
      SELECT position FROM {schema}.outbox WHERE xid = pg_current_xact_id() AND NOT placed OFFSET 0
    ) u ORDER BY position
  LOOP
    UPDATE {schema}.outbox SET position = nextval('{schema}.outbox_position'), placed = true WHERE position = place;
  END LOOP;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER outbox_take_places AFTER INSERT ON {schema}.outbox
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NOT NEW.placed) EXECUTE FUNCTION {schema}.outbox_take_places();

-- What a relay reads, as functions because only these can bring planner settings of their own: after a quiet night the statistics
-- say that nothing is ready, and to sort the whole table looks cheap to the planner just when a hundred thousand rows are.

-- $1 name, $2 shards, $3 positions in hand, $4 crowded keys (JSON), $5 rows, $6 bytes, $7 after this position. Ready rows of these shards,
-- not in hand and not of these keys, lowest position first. Blocked: a held row of the same key, that is not in hand, goes before it.
CREATE FUNCTION {schema}.outbox_ready_page(text, smallint[], bigint[], jsonb, integer, bigint, bigint)
RETURNS TABLE (place bigint, blocked boolean) LANGUAGE sql STABLE ROWS 500
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
  SELECT p.position, p.blocked
  FROM (
    SELECT o.position, sum(o.size) OVER (ORDER BY o.position ROWS UNBOUNDED PRECEDING) - o.size AS before,
      o.key IS NOT NULL AND (
        SELECT true FROM {schema}.outbox h
        WHERE h.name = $1 AND h.state = 'held' AND h.key = o.key AND h.position NOT IN (SELECT unnest($3)) LIMIT 1
      ) IS NOT NULL AS blocked
    FROM (
      SELECT r.position, r.key, octet_length(r.body) + octet_length(r.properties) AS size FROM {schema}.outbox r
      WHERE r.name = $1 AND r.state = 'ready' AND r.position > $7 AND r.shard = ANY ($2) AND r.position NOT IN (SELECT unnest($3))
        AND (r.key IS NULL OR r.key NOT IN (SELECT jsonb_array_elements_text($4)))
      ORDER BY r.position LIMIT $5
    ) o
  ) p
  WHERE p.before < $6
$$;

-- $1 name, $2 shards, $3 positions in hand, $4 rows, $5 bytes, $6 rows per key. Held rows that are the first of their key and whose time
-- has come, those due longest first (turn), each with the held rows of its key behind it.
CREATE FUNCTION {schema}.outbox_due_page(text, smallint[], bigint[], integer, bigint, integer)
RETURNS TABLE (place bigint, turn bigint) LANGUAGE sql STABLE ROWS 100
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  SELECT p.position, p.turn
  FROM (
    SELECT o.position, o.turn, sum(o.size) OVER (ORDER BY o.turn, o.position ROWS UNBOUNDED PRECEDING) - o.size AS before
    FROM (
      SELECT r.position, octet_length(r.body) + octet_length(r.properties) AS size, d.turn
      FROM (
        SELECT c.*, row_number() OVER (ORDER BY c.not_before, c.position) AS turn
        FROM (
          SELECT h.position, h.key, h.not_before FROM {schema}.outbox h
          -- now(), which an index knows what to do with; clock_timestamp() would walk over all held rows.
          WHERE h.name = $1 AND h.state = 'held' AND h.not_before <= now() AND h.shard = ANY ($2)
            AND h.position NOT IN (SELECT unnest($3))
            AND (h.key IS NULL OR (
              SELECT f.position FROM {schema}.outbox f
              WHERE f.name = $1 AND f.state = 'held' AND f.key = h.key ORDER BY f.position LIMIT 1
            ) = h.position)
          ORDER BY h.not_before LIMIT $4
        ) c
      ) d
      CROSS JOIN LATERAL (
        SELECT s.position, s.body, s.properties FROM {schema}.outbox s WHERE s.position = d.position AND s.state = 'held'
        UNION ALL
        (SELECT f.position, f.body, f.properties FROM {schema}.outbox f
          WHERE d.key IS NOT NULL AND f.name = $1 AND f.state = 'held' AND f.key = d.key AND f.position > d.position
          ORDER BY f.position LIMIT $6 - 1)
      ) r
      ORDER BY d.turn, r.position LIMIT $4
    ) o
  ) p
  WHERE p.before < $5
$$;

-- Who sends which share. A relay owns a shard while its lease lasts; the epoch grows with every change of owner.
CREATE TABLE {schema}.outbox_shards (
  name  text        NOT NULL,
  shard smallint    NOT NULL,
  owner text,
  epoch bigint      NOT NULL DEFAULT 0,
  until timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (name, shard)
);

-- The relays that live.
CREATE TABLE {schema}.outbox_relays (
  name  text        NOT NULL,
  owner text        NOT NULL,
  until timestamptz NOT NULL,
  PRIMARY KEY (name, owner)
);
`

-- The one way into the log, with the head lock first.
--
-- A call carries members. A member is atomic: all its streams, receipts and reservations hold, or
-- nothing of it is written. Members of one call never share a stream, receipt or reservation key;
-- the caller sees to that.
--
-- Everybody who adds to these tables locks log_head before any row of them. What a statement below
-- checks is therefore still so when a later one writes. (Erasure only deletes, and only what hangs
-- on a key that no append may use any more.) One function and not one statement, because
-- a single statement that waits for a lock goes on reading with the snapshot it began with.
--
-- `member` counts from 1 in every type. `nth` is the place of an event among all events of the
-- call; where nothing is lost, its position is the head plus `nth`.
CREATE TYPE append_stream AS (
    member int, aggregate_type text, aggregate_id text, user_id uuid,
    expected bigint,      -- the sequence the decision was made on
    sequence bigint,      -- the sequence after it
    nth bigint,           -- of its last event
    op smallint, origin uuid, state_version int, state_sealed bytea);
CREATE TYPE append_event AS (
    member int, nth bigint, aggregate_type text, aggregate_id text, sequence bigint,
    event_type text, event_version text, payload text, metadata text, event_id uuid, user_id uuid,
    recorded_at timestamptz, sealed bytea, leaf_hash bytea);
CREATE TYPE append_receipt AS (
    member int, nth bigint, user_id uuid, scope text, hmac bytea, content_hmac bytea, outcome text);
-- The last event of a member for each class of readers of one person; null where there is none.
CREATE TYPE append_reach AS (
    member int, user_id uuid, health bigint, session bigint, other bigint);
-- A key that must be active, and the privacy version the decision was made under (or null).
CREATE TYPE append_key AS (
    member int, user_id uuid, purpose text, key_id uuid, privacy_version bigint);
-- action: 1 claim, 2 release if held by that stream, 3 pass on from `holder`.
CREATE TYPE append_reservation AS (
    member int, action smallint, scope text, hmac bytea, key_id uuid, user_id uuid,
    aggregate_type text, aggregate_id text, holder text);
-- status: 1 creates the key, 2 destroys it, 0 only raises the privacy version.
CREATE TYPE append_key_change AS (
    member int, user_id uuid, purpose text, key_id uuid, commitment bytea, status smallint);
-- old_lo_ms names the row that is rewritten, null inserts; null blobs keep what the row has.
CREATE TYPE append_segment AS (
    lane smallint, old_lo_ms bigint, lo_ms bigint, hi_ms bigint, n int, segment_id uuid,
    version int, format smallint, folds bytea, cols_sealed bytea, ids_sealed bytea);
-- The sample side of a member that is alone in its call, under its person's lane.
CREATE TYPE append_samples AS (
    user_id uuid,
    health_seq bigint,    -- the one the batch was decided on
    changed boolean,      -- whether a reader can see a difference
    segments append_segment[],
    tombstones bytea[]);

DROP FUNCTION append;

-- Outcomes: 0 appended, 1 conflict of a sequence, 3 duplicate receipt, 4 reserved by another,
-- 5 refused by the state of a key. (2 once meant: a row is locked elsewhere.)
CREATE FUNCTION append(
    p_events_of int[],    -- how many events each member has
    p_streams append_stream[],
    p_events append_event[],            -- in the order of `nth`
    p_receipts append_receipt[],
    p_reach append_reach[],
    p_keys append_key[],
    p_reservations append_reservation[],
    p_key_changes append_key_change[],
    p_samples append_samples,           -- or null
    OUT outcomes smallint[],
    OUT head bigint,                    -- before the first of these events
    OUT committed_ms bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    -- Events of losing members before each member: what its `nth` counts too much.
    v_gone     bigint[] := array_fill(0::bigint, ARRAY[cardinality(p_events_of)]);
    v_total    bigint   := 0;
    v_loser    int;
    v_losers   int[];
    v_reasons  smallint[];
BEGIN
    outcomes := array_fill(0::smallint, ARRAY[cardinality(p_events_of)]);

    -- 1. Samples: large, and nobody else's business under the lane of their person. Should the
    --    member lose, only a rollback takes them back.
    IF p_samples.user_id IS NOT NULL THEN
        IF cardinality(p_samples.segments) > 0 THEN
            UPDATE health_segments h
               SET lo_ms = w.lo_ms, hi_ms = w.hi_ms, n = w.n, segment_id = w.segment_id,
                   version = w.version, format = w.format, folds = coalesce(w.folds, h.folds),
                   cols_sealed = coalesce(w.cols_sealed, h.cols_sealed),
                   ids_sealed = coalesce(w.ids_sealed, h.ids_sealed),
                   ids_version = CASE WHEN w.ids_sealed IS NULL THEN h.ids_version ELSE w.version END
              FROM unnest(p_samples.segments) w
             WHERE w.old_lo_ms IS NOT NULL
               AND h.user_id = p_samples.user_id AND h.lane = w.lane AND h.lo_ms = w.old_lo_ms;
            INSERT INTO health_segments (user_id, lane, lo_ms, hi_ms, n, segment_id, version,
                                         ids_version, format, folds, cols_sealed, ids_sealed)
            SELECT p_samples.user_id, lane, lo_ms, hi_ms, n, segment_id, version, version, format,
                   folds, cols_sealed, ids_sealed
              FROM unnest(p_samples.segments) WHERE old_lo_ms IS NULL;
        END IF;
        IF cardinality(p_samples.tombstones) > 0 THEN
            INSERT INTO health_tombstones (user_id, hmac)
            SELECT p_samples.user_id, hmac FROM unnest(p_samples.tombstones) AS hmac ORDER BY hmac
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;

    -- 2. The head.
    SELECT h.position, h.committed_ms INTO head, committed_ms FROM log_head h FOR UPDATE;
    -- Times never go back, whatever the clock does.
    committed_ms := greatest(committed_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint);

    -- 3. Who loses, and why. Each look-up is a subquery of its own, so that it goes by the key.
    SELECT array_agg(w.member), array_agg(w.reason) INTO v_losers, v_reasons FROM (
        SELECT s.member, 1::smallint AS reason FROM unnest(p_streams) s
         WHERE s.expected <> coalesce((SELECT t.sequence FROM streams t
                WHERE t.aggregate_type = s.aggregate_type AND t.aggregate_id = s.aggregate_id), 0)
        UNION ALL
        SELECT r.member, 3::smallint FROM unnest(p_receipts) r
         WHERE (SELECT true FROM receipts t
                 WHERE t.user_id = r.user_id AND t.scope = r.scope AND t.hmac = r.hmac)
        UNION ALL
        SELECT k.member, 5::smallint FROM unnest(p_keys) k
         WHERE (SELECT t.key_id = k.key_id AND t.status = 1
                       AND t.privacy_version = coalesce(k.privacy_version, t.privacy_version)
                  FROM subjects t
                 WHERE t.user_id = k.user_id AND t.purpose = k.purpose) IS NOT TRUE
    ) w;
    IF v_losers IS NOT NULL THEN
        -- From the last to the first: the first reason stays.
        FOR i IN REVERSE cardinality(v_losers) .. 1 LOOP
            outcomes[v_losers[i]] := v_reasons[i];
        END LOOP;
    END IF;
    IF cardinality(p_reservations) > 0 THEN
        FOR v_loser IN
            SELECT v.member FROM unnest(p_reservations) v
              LEFT JOIN reservations t ON t.scope = v.scope AND t.hmac = v.hmac
             WHERE CASE v.action
                   WHEN 1 THEN t.hmac IS NOT NULL
                   WHEN 2 THEN t.aggregate_id IS DISTINCT FROM v.aggregate_id
                   ELSE t.aggregate_id IS DISTINCT FROM v.holder END
        LOOP
            IF outcomes[v_loser] = 0 THEN outcomes[v_loser] := 4; END IF;
        END LOOP;
    END IF;
    IF p_samples.user_id IS NOT NULL THEN
        IF outcomes[1] = 0 AND p_samples.health_seq <> coalesce(
            (SELECT u.health_seq FROM user_heads u WHERE u.user_id = p_samples.user_id), 0)
        THEN
            outcomes[1] := 1;
        END IF;
        IF outcomes[1] <> 0
           AND cardinality(p_samples.segments) + cardinality(p_samples.tombstones) > 0
        THEN
            RAISE EXCEPTION 'append lost: outcome %', outcomes[1] USING ERRCODE = 'TM001',
                DETAIL = outcomes[1]::text;
        END IF;
    END IF;
    IF 0 <> ANY (outcomes) THEN
        FOR i IN 1 .. cardinality(p_events_of) LOOP
            v_gone[i] := v_total;
            IF outcomes[i] <> 0 THEN v_total := v_total + p_events_of[i]; END IF;
        END LOOP;
    END IF;
    v_total := cardinality(p_events) - v_total;

    -- 4. Write what the winners bring: each table once, all in one statement, because every
    --    statement costs about as much as the rows of a small call.
    WITH new_events AS (
        INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                            payload, metadata, position, event_id, user_id, recorded_at,
                            committed_ms, sealed, leaf_hash)
        SELECT e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
               e.payload::json, e.metadata::json, head + e.nth - v_gone[e.member], e.event_id,
               e.user_id, e.recorded_at, committed_ms, e.sealed, e.leaf_hash
          FROM unnest(p_events) e WHERE outcomes[e.member] = 0
    ), new_heads AS (
        INSERT INTO streams AS t (aggregate_type, aggregate_id, user_id, sequence, position,
                                  committed_ms, op, origin, state_version, state_sealed)
        SELECT s.aggregate_type, s.aggregate_id, s.user_id, s.sequence,
               head + s.nth - v_gone[s.member], committed_ms, s.op, s.origin, s.state_version,
               s.state_sealed
          FROM unnest(p_streams) s WHERE outcomes[s.member] = 0 AND s.sequence > s.expected
        ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
           SET sequence = excluded.sequence, position = excluded.position,
               committed_ms = excluded.committed_ms, op = excluded.op, origin = excluded.origin,
               state_version = excluded.state_version, state_sealed = excluded.state_sealed
    ), new_reach AS (
        INSERT INTO user_heads AS t (user_id, pos_health, pos_session, pos_other)
        SELECT r.user_id, coalesce(max(head + r.health - v_gone[r.member]), 0),
               coalesce(max(head + r.session - v_gone[r.member]), 0),
               coalesce(max(head + r.other - v_gone[r.member]), 0)
          FROM unnest(p_reach) r WHERE outcomes[r.member] = 0 GROUP BY r.user_id
        ON CONFLICT (user_id) DO UPDATE
           SET pos_health = greatest(t.pos_health, excluded.pos_health),
               pos_session = greatest(t.pos_session, excluded.pos_session),
               pos_other = greatest(t.pos_other, excluded.pos_other)
    ), new_receipts AS (
        INSERT INTO receipts (user_id, scope, hmac, content_hmac, outcome, position, created_ms)
        SELECT r.user_id, r.scope, r.hmac, r.content_hmac, r.outcome,
               head + r.nth - v_gone[r.member], committed_ms
          FROM unnest(p_receipts) r WHERE outcomes[r.member] = 0
    )
    UPDATE log_head SET position = head + v_total, committed_ms = append.committed_ms
     WHERE v_total > 0;
    IF p_samples.user_id IS NOT NULL AND outcomes[1] = 0 THEN
        UPDATE user_heads t
           SET received_seq = t.received_seq + 1,
               health_seq = t.health_seq + p_samples.changed::int
         WHERE t.user_id = p_samples.user_id;
    END IF;
    IF cardinality(p_reservations) > 0 THEN
        INSERT INTO reservations (scope, hmac, key_id, user_id, aggregate_type, aggregate_id)
        SELECT v.scope, v.hmac, v.key_id, v.user_id, v.aggregate_type, v.aggregate_id
          FROM unnest(p_reservations) v WHERE v.action = 1 AND outcomes[v.member] = 0;
        DELETE FROM reservations t USING unnest(p_reservations) v
         WHERE v.action = 2 AND outcomes[v.member] = 0 AND t.scope = v.scope AND t.hmac = v.hmac;
        UPDATE reservations t
           SET aggregate_type = v.aggregate_type, aggregate_id = v.aggregate_id
          FROM unnest(p_reservations) v
         WHERE v.action = 3 AND outcomes[v.member] = 0 AND t.scope = v.scope AND t.hmac = v.hmac;
    END IF;
    IF cardinality(p_key_changes) > 0 THEN
        INSERT INTO subjects (user_id, purpose, key_id, commitment, status)
        SELECT c.user_id, c.purpose, c.key_id, c.commitment, c.status
          FROM unnest(p_key_changes) c WHERE c.status = 1 AND outcomes[c.member] = 0;
        UPDATE subjects t
           SET privacy_version = t.privacy_version + 1,
               status = CASE c.status WHEN 2 THEN 2 ELSE t.status END
          FROM unnest(p_key_changes) c
         WHERE c.status <> 1 AND outcomes[c.member] = 0
           AND t.user_id = c.user_id AND t.purpose = c.purpose;
    END IF;
END $$;

-- postgres-es's trigger takes the same lock first.
CREATE OR REPLACE FUNCTION append_catalogue_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    c_catalogue CONSTANT uuid := '00000000-0000-0000-0000-000000000001';
    v_sequence bigint;
    v_position bigint;
    v_ms       bigint;
BEGIN
    IF NEW.aggregate_type <> 'catalogue_product' THEN
        RAISE EXCEPTION 'only public catalogue events may be written this way'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT h.position + 1, greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint,
                                    h.committed_ms)
      INTO v_position, v_ms FROM log_head h FOR UPDATE;
    v_sequence := coalesce((SELECT s.sequence FROM streams s
                             WHERE s.aggregate_type = NEW.aggregate_type
                               AND s.aggregate_id = NEW.aggregate_id), 0);
    IF NEW.sequence <> v_sequence + 1 THEN
        -- The one code postgres-es takes for a conflict of writers.
        RAISE EXCEPTION 'the stream is at %, not at %', v_sequence, NEW.sequence - 1
            USING ERRCODE = 'unique_violation';
    END IF;

    NEW.position := v_position;
    NEW.committed_ms := v_ms;
    NEW.event_id := event_id_at(v_ms);
    NEW.user_id := c_catalogue;
    NEW.recorded_at := to_timestamp(v_ms / 1000.0);
    NEW.sealed := NULL;
    NEW.metadata := json_build_object(
        'correlation_id', coalesce(NEW.metadata ->> 'correlation_id', NEW.event_id::text),
        'actor', json_build_object('kind', 'staff',
                                   'subject', coalesce(NEW.metadata ->> 'subject', 'catalogue')));
    NEW.leaf_hash := leaf_hash(NEW.event_id, NEW.aggregate_type, NEW.aggregate_id, NEW.sequence,
        NEW.event_type, NEW.event_version, NEW.user_id, v_ms, NEW.payload::text,
        NEW.metadata::text, NULL);

    INSERT INTO streams (aggregate_type, aggregate_id, user_id, sequence, position, committed_ms,
                         op, state_version)
    VALUES (NEW.aggregate_type, NEW.aggregate_id, c_catalogue, NEW.sequence, v_position, v_ms, 1, 0)
    ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
       SET sequence = excluded.sequence, position = excluded.position,
           committed_ms = excluded.committed_ms, op = 2;
    INSERT INTO user_heads AS u (user_id, pos_other) VALUES (c_catalogue, v_position)
    ON CONFLICT (user_id) DO UPDATE SET pos_other = excluded.pos_other;
    UPDATE log_head SET position = v_position, committed_ms = v_ms;
    RETURN NEW;
END $$;

DO $$
BEGIN
    REVOKE ALL ON FUNCTION append FROM PUBLIC;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_app') THEN
        GRANT EXECUTE ON FUNCTION append TO tidemark_app;
    END IF;
END $$;

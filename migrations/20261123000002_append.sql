-- The one way into the log.
--
-- A call carries members. A member is atomic: all its streams, receipts and reservations hold, or
-- nothing of it is written. Members of one call never share a stream, receipt or reservation key;
-- the caller sees to that.
--
-- One function and not one statement, because a single statement that waits for a lock goes on
-- reading with the snapshot it began with. Every statement below has a snapshot of its own.
--
-- Lock order: streams, receipts, reservations, log_head, then subjects and user_heads. Everything
-- slow comes before log_head, and nothing that can wait comes after it.
--
-- Outcomes: 0 appended, 1 conflict of a sequence, 2 deferred (a stream row is locked elsewhere),
-- 3 duplicate receipt, 4 reserved by another, 5 refused by the state of a key.
CREATE FUNCTION append(
    p_wait boolean,       -- false: skip rows locked elsewhere (fast lane); true: wait for them
    p_members int,
    -- streams: one entry for each stream of each member, ordered by (type, id)
    s_member int[], s_type text[], s_id text[], s_user uuid[], s_expected bigint[], s_events int[],
    s_op smallint[], s_origin uuid[], s_state_version int[], s_state bytea[],
    -- events, ordered by member; e_stream is a 1-based index into the stream entries
    e_stream int[], e_offset int[], e_id uuid[], e_type text[], e_version text[],
    e_recorded_ms bigint[], e_payload text[], e_metadata text[], e_sealed bytea[], e_leaf bytea[],
    e_class smallint[],   -- 1 health, 2 session, 3 other, 4 all of them, 0 nothing a reader can see
    -- receipts
    r_member int[], r_user uuid[], r_scope text[], r_hmac bytea[], r_content bytea[],
    r_outcome text[],
    -- reservations; action 1 claim, 2 release if held by that stream, 3 pass on from `v_from`
    v_member int[], v_action smallint[], v_scope text[], v_hmac bytea[], v_key uuid[],
    v_user uuid[], v_type text[], v_id text[], v_from text[],
    -- keys that must be active, and the privacy version the decision was made under (or null)
    k_member int[], k_user uuid[], k_purpose text[], k_key uuid[], k_privacy bigint[],
    -- changes of keys: status 1 creates, 2 destroys; 0 only raises the privacy version
    c_member int[], c_user uuid[], c_purpose text[], c_key uuid[], c_commitment bytea[],
    c_status smallint[],
    -- changing health batches: the health_seq each was decided on
    w_member int[], w_user uuid[], w_seq bigint[], w_changed boolean[],
    -- segments; g_old_lo names the row that is rewritten, null inserts; null g_ids keeps the ids
    g_user uuid[], g_lane smallint[], g_old_lo bigint[], g_lo bigint[], g_hi bigint[], g_n int[],
    g_segment uuid[], g_version int[], g_format smallint[], g_folds bytea[], g_cols bytea[],
    g_ids bytea[],
    t_user uuid[], t_hmac bytea[]
) RETURNS TABLE (member int, outcome smallint, first_position bigint, last_position bigint,
                 committed_ms bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    v_out      smallint[] := array_fill(0::smallint, ARRAY[p_members]);
    v_first    bigint[]   := array_fill(NULL::bigint, ARRAY[p_members]);
    v_last     bigint[]   := array_fill(NULL::bigint, ARRAY[p_members]);
    v_row      record;
    v_position bigint;
    v_head     bigint;
    v_ms       bigint;
    v_now_ms   bigint;
    v_lost     boolean := false;
BEGIN
    -- 1. Streams: lock what exists, in key order; insert what is new, in key order.
    IF p_wait THEN
        PERFORM 1 FROM streams s
          JOIN unnest(s_type, s_id, s_expected) AS w(type, id, expected)
            ON s.aggregate_type = w.type AND s.aggregate_id = w.id
         WHERE w.expected > 0
         ORDER BY s.aggregate_type, s.aggregate_id FOR NO KEY UPDATE OF s;
        FOR v_row IN
            SELECT w.member FROM unnest(s_member, s_type, s_id, s_expected)
                     AS w(member, type, id, expected)
              LEFT JOIN streams s ON s.aggregate_type = w.type AND s.aggregate_id = w.id
             WHERE w.expected > 0 AND s.sequence IS DISTINCT FROM w.expected
        LOOP v_out[v_row.member] := 1; v_lost := true; END LOOP;
    ELSE
        FOR v_row IN
            WITH locked AS (
                SELECT s.aggregate_type, s.aggregate_id, s.sequence FROM streams s
                  JOIN unnest(s_type, s_id, s_expected) AS w(type, id, expected)
                    ON s.aggregate_type = w.type AND s.aggregate_id = w.id
                 WHERE w.expected > 0
                 ORDER BY s.aggregate_type, s.aggregate_id FOR NO KEY UPDATE OF s SKIP LOCKED
            )
            SELECT w.member, l.sequence IS NULL AS unlocked,
                   l.sequence IS NULL AND EXISTS (SELECT 1 FROM streams s
                        WHERE s.aggregate_type = w.type AND s.aggregate_id = w.id) AS existing
              FROM unnest(s_member, s_type, s_id, s_expected) AS w(member, type, id, expected)
              LEFT JOIN locked l ON l.aggregate_type = w.type AND l.aggregate_id = w.id
             WHERE w.expected > 0 AND l.sequence IS DISTINCT FROM w.expected
        LOOP
            v_out[v_row.member] := CASE WHEN v_row.unlocked AND v_row.existing THEN 2 ELSE 1 END;
            v_lost := true;
        END LOOP;
    END IF;

    IF 0 = ANY (s_expected) THEN
        FOR v_row IN
            WITH wanted AS (
                SELECT w.* FROM unnest(s_member, s_type, s_id, s_user, s_expected)
                         AS w(member, type, id, usr, expected)
                 WHERE w.expected = 0 AND v_out[w.member] = 0
            ), inserted AS (
                INSERT INTO streams (aggregate_type, aggregate_id, user_id, sequence, position,
                                     committed_ms, op, state_version)
                SELECT type, id, usr, 0, 0, 0, 1, 0 FROM wanted ORDER BY type, id
                ON CONFLICT DO NOTHING
                RETURNING aggregate_type, aggregate_id
            )
            SELECT w.member FROM wanted w
              LEFT JOIN inserted i ON i.aggregate_type = w.type AND i.aggregate_id = w.id
             WHERE i.aggregate_id IS NULL
        LOOP v_out[v_row.member] := 1; v_lost := true; END LOOP;
    END IF;

    -- 2. Receipts.
    IF cardinality(r_member) > 0 THEN
        v_now_ms := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
        FOR v_row IN
            WITH wanted AS (
                SELECT w.* FROM unnest(r_member, r_user, r_scope, r_hmac, r_content, r_outcome)
                         AS w(member, usr, scope, hmac, content, outcome)
                 WHERE v_out[w.member] = 0
            ), inserted AS (
                INSERT INTO receipts (user_id, scope, hmac, content_hmac, outcome, created_ms)
                SELECT usr, scope, hmac, content, outcome, v_now_ms FROM wanted
                 ORDER BY usr, scope, hmac
                ON CONFLICT DO NOTHING
                RETURNING user_id, scope, hmac
            )
            SELECT w.member FROM wanted w
              LEFT JOIN inserted i ON i.user_id = w.usr AND i.scope = w.scope AND i.hmac = w.hmac
             WHERE i.hmac IS NULL
        LOOP v_out[v_row.member] := 3; v_lost := true; END LOOP;
    END IF;

    -- 3. Reservations: claims insert, releases and passings-on lock and compare.
    IF cardinality(v_member) > 0 THEN
        FOR v_row IN
            WITH wanted AS (
                SELECT w.* FROM unnest(v_member, v_action, v_scope, v_hmac, v_key, v_user, v_type,
                                       v_id)
                         AS w(member, action, scope, hmac, key, usr, type, id)
                 WHERE w.action = 1 AND v_out[w.member] = 0
            ), inserted AS (
                INSERT INTO reservations (scope, hmac, key_id, user_id, aggregate_type,
                                          aggregate_id)
                SELECT scope, hmac, key, usr, type, id FROM wanted ORDER BY scope, hmac
                ON CONFLICT DO NOTHING
                RETURNING scope, hmac
            )
            SELECT w.member FROM wanted w
              LEFT JOIN inserted i ON i.scope = w.scope AND i.hmac = w.hmac
             WHERE i.hmac IS NULL
        LOOP v_out[v_row.member] := 4; v_lost := true; END LOOP;
        PERFORM 1 FROM reservations v
          JOIN unnest(v_member, v_action, v_scope, v_hmac) AS w(member, action, scope, hmac)
            ON v.scope = w.scope AND v.hmac = w.hmac
         WHERE w.action > 1 AND v_out[w.member] = 0
         ORDER BY v.scope, v.hmac FOR UPDATE OF v;
        FOR v_row IN
            SELECT w.member FROM unnest(v_member, v_action, v_scope, v_hmac, v_id, v_from)
                     AS w(member, action, scope, hmac, id, holder)
              LEFT JOIN reservations v ON v.scope = w.scope AND v.hmac = w.hmac
             WHERE w.action > 1 AND v_out[w.member] = 0
               AND v.aggregate_id IS DISTINCT FROM CASE w.action WHEN 2 THEN w.id ELSE w.holder END
        LOOP v_out[v_row.member] := 4; v_lost := true; END LOOP;
    END IF;

    -- 4. Samples: only ever one member, one person, under that person's lock.
    IF cardinality(g_user) > 0 AND v_out[1] = 0 THEN
        UPDATE health_segments h
           SET lo_ms = w.lo, hi_ms = w.hi, n = w.n, segment_id = w.segment, version = w.version,
               format = w.format, folds = coalesce(w.folds, h.folds),
               cols_sealed = coalesce(w.cols, h.cols_sealed),
               ids_sealed = coalesce(w.ids, h.ids_sealed),
               ids_version = CASE WHEN w.ids IS NULL THEN h.ids_version ELSE w.version END
          FROM unnest(g_user, g_lane, g_old_lo, g_lo, g_hi, g_n, g_segment, g_version, g_format,
                      g_folds, g_cols, g_ids)
            AS w(usr, lane, old_lo, lo, hi, n, segment, version, format, folds, cols, ids)
         WHERE w.old_lo IS NOT NULL
           AND h.user_id = w.usr AND h.lane = w.lane AND h.lo_ms = w.old_lo;
        INSERT INTO health_segments (user_id, lane, lo_ms, hi_ms, n, segment_id, version,
                                     ids_version, format, folds, cols_sealed, ids_sealed)
        SELECT usr, lane, lo, hi, n, segment, version, version, format, folds, cols, ids
          FROM unnest(g_user, g_lane, g_old_lo, g_lo, g_hi, g_n, g_segment, g_version, g_format,
                      g_folds, g_cols, g_ids)
            AS w(usr, lane, old_lo, lo, hi, n, segment, version, format, folds, cols, ids)
         WHERE w.old_lo IS NULL;
    END IF;
    IF cardinality(t_user) > 0 AND v_out[1] = 0 THEN
        INSERT INTO health_tombstones (user_id, hmac)
        SELECT usr, hmac FROM unnest(t_user, t_hmac) AS w(usr, hmac) ORDER BY usr, hmac
        ON CONFLICT DO NOTHING;
    END IF;

    -- 5. The head, last of the locks that can wait.
    SELECT h.position, h.committed_ms INTO v_head, v_ms FROM log_head h FOR UPDATE;

    -- 6. Keys, read in a snapshot newer than the head lock: a key's destruction and everything
    --    it seals are thereby in one order.
    IF cardinality(k_member) > 0 THEN
        FOR v_row IN
            SELECT w.member FROM unnest(k_member, k_user, k_purpose, k_key, k_privacy)
                     AS w(member, usr, purpose, key, privacy)
              LEFT JOIN subjects j ON j.user_id = w.usr AND j.purpose = w.purpose
             WHERE v_out[w.member] = 0
               AND (j.key_id IS DISTINCT FROM w.key OR j.status <> 1
                    OR j.privacy_version <> coalesce(w.privacy, j.privacy_version))
        LOOP v_out[v_row.member] := 5; v_lost := true; END LOOP;
    END IF;
    IF cardinality(w_member) > 0 THEN
        FOR v_row IN
            SELECT w.member FROM unnest(w_member, w_user, w_seq) AS w(member, usr, seq)
              LEFT JOIN user_heads u ON u.user_id = w.usr
             WHERE v_out[w.member] = 0 AND coalesce(u.health_seq, 0) <> w.seq
        LOOP v_out[v_row.member] := 1; v_lost := true; END LOOP;
    END IF;
    IF cardinality(g_user) + cardinality(t_user) > 0 AND v_out[1] <> 0 THEN
        -- Samples were already written above; only a rollback takes them back.
        RAISE EXCEPTION 'append lost: outcome %', v_out[1] USING ERRCODE = 'TM001',
            DETAIL = v_out[1]::text;
    END IF;

    -- Losers leave no trace.
    IF v_lost THEN
        DELETE FROM streams s USING unnest(s_member, s_type, s_id, s_expected)
                     AS w(member, type, id, expected)
         WHERE w.expected = 0 AND v_out[w.member] <> 0
           AND s.aggregate_type = w.type AND s.aggregate_id = w.id AND s.sequence = 0;
        DELETE FROM receipts r USING unnest(r_member, r_user, r_scope, r_hmac)
                     AS w(member, usr, scope, hmac)
         WHERE v_out[w.member] <> 0
           AND r.user_id = w.usr AND r.scope = w.scope AND r.hmac = w.hmac
           AND r.xmin = pg_current_xact_id()::xid; -- never the winner's row
        DELETE FROM reservations v USING unnest(v_member, v_action, v_scope, v_hmac)
                     AS w(member, action, scope, hmac)
         WHERE w.action = 1 AND v_out[w.member] <> 0
           AND v.scope = w.scope AND v.hmac = w.hmac AND v.xmin = pg_current_xact_id()::xid;
    END IF;

    -- 7. Number and write the rest.
    v_ms := greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, v_ms);
    WITH numbered AS (
        SELECT s.member, s.type, s.id, s.usr, s.ord AS stream, s.expected + e.nth AS sequence, e.*,
               v_head + row_number() OVER (ORDER BY e.ord) AS pos
          FROM unnest(e_stream, e_offset, e_id, e_type, e_version, e_recorded_ms, e_payload,
                      e_metadata, e_sealed, e_leaf) WITH ORDINALITY
            AS e(stream_ix, nth, event_id, event_type, event_version, recorded_ms, payload,
                 metadata, sealed, leaf, ord)
          JOIN unnest(s_member, s_type, s_id, s_user, s_expected) WITH ORDINALITY
            AS s(member, type, id, usr, expected, ord) ON s.ord = e.stream_ix
         WHERE v_out[s.member] = 0
    ), written AS (
        INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version,
                            payload, metadata, position, event_id, user_id, recorded_at,
                            committed_ms, sealed, leaf_hash)
        SELECT type, id, sequence, event_type, event_version, payload::json, metadata::json, pos,
               event_id, usr, to_timestamp(recorded_ms / 1000.0), v_ms, sealed, leaf
          FROM numbered ORDER BY pos
    )
    SELECT coalesce(max(pos), v_head) INTO v_position FROM numbered;

    IF v_position > v_head THEN
        -- Positions again, from the same order, for the rows that refer to them.
        WITH placed AS (
            SELECT s.member, s.ord AS stream,
                   v_head + row_number() OVER (ORDER BY e.ord) AS pos
              FROM unnest(e_stream) WITH ORDINALITY AS e(stream_ix, ord)
              JOIN unnest(s_member) WITH ORDINALITY AS s(member, ord) ON s.ord = e.stream_ix
             WHERE v_out[s.member] = 0
        ), heads AS (
            UPDATE streams t
               SET sequence = w.expected + w.events, position = p.last, committed_ms = v_ms,
                   op = w.op, origin = w.origin, state_version = w.state_version,
                   state_sealed = w.state
              FROM unnest(s_type, s_id, s_expected, s_events, s_op, s_origin, s_state_version,
                          s_state) WITH ORDINALITY
                AS w(type, id, expected, events, op, origin, state_version, state, ord)
              JOIN (SELECT stream, max(pos) AS last FROM placed GROUP BY stream) p
                ON p.stream = w.ord
             WHERE t.aggregate_type = w.type AND t.aggregate_id = w.id
        )
        SELECT array_agg(m.first ORDER BY g.member), array_agg(m.last ORDER BY g.member)
          INTO v_first, v_last
          FROM generate_series(1, p_members) AS g(member)
          LEFT JOIN (SELECT member, min(pos) AS first, max(pos) AS last FROM placed
                      GROUP BY member) m ON m.member = g.member;

        INSERT INTO user_heads AS u (user_id, health_seq, pos_health, pos_session, pos_other)
        SELECT s.usr, 0,
               coalesce(max(p.pos) FILTER (WHERE p.class IN (1, 4)), 0),
               coalesce(max(p.pos) FILTER (WHERE p.class IN (2, 4)), 0),
               coalesce(max(p.pos) FILTER (WHERE p.class IN (3, 4)), 0)
          FROM (SELECT e.stream_ix, e.class,
                       v_head + row_number() OVER (ORDER BY e.ord) AS pos
                  FROM unnest(e_stream, e_class) WITH ORDINALITY AS e(stream_ix, class, ord)
                 WHERE v_out[s_member[e.stream_ix]] = 0) p
          JOIN unnest(s_user) WITH ORDINALITY AS s(usr, ord) ON s.ord = p.stream_ix
         GROUP BY s.usr ORDER BY s.usr
        ON CONFLICT (user_id) DO UPDATE
           SET pos_health = greatest(u.pos_health, excluded.pos_health),
               pos_session = greatest(u.pos_session, excluded.pos_session),
               pos_other = greatest(u.pos_other, excluded.pos_other);

        IF cardinality(w_member) > 0 THEN
            UPDATE user_heads u SET received_seq = u.received_seq + 1,
                   health_seq = u.health_seq + CASE WHEN w.changed THEN 1 ELSE 0 END
              FROM unnest(w_member, w_user, w_changed) AS w(member, usr, changed)
             WHERE u.user_id = w.usr AND v_out[w.member] = 0;
        END IF;
        IF cardinality(r_member) > 0 THEN
            UPDATE receipts r SET position = v_last[w.member]
              FROM unnest(r_member, r_user, r_scope, r_hmac) AS w(member, usr, scope, hmac)
             WHERE v_out[w.member] = 0 AND v_last[w.member] IS NOT NULL
               AND r.user_id = w.usr AND r.scope = w.scope AND r.hmac = w.hmac;
        END IF;
        UPDATE log_head SET position = v_position, committed_ms = v_ms;
    END IF;

    IF cardinality(v_member) > 0 THEN
        DELETE FROM reservations v USING unnest(v_member, v_action, v_scope, v_hmac)
                     AS w(member, action, scope, hmac)
         WHERE w.action = 2 AND v_out[w.member] = 0 AND v.scope = w.scope AND v.hmac = w.hmac;
        UPDATE reservations v SET aggregate_type = w.type, aggregate_id = w.id
          FROM unnest(v_member, v_action, v_scope, v_hmac, v_type, v_id)
            AS w(member, action, scope, hmac, type, id)
         WHERE w.action = 3 AND v_out[w.member] = 0 AND v.scope = w.scope AND v.hmac = w.hmac;
    END IF;
    IF cardinality(c_member) > 0 THEN
        INSERT INTO subjects (user_id, purpose, key_id, commitment, status)
        SELECT usr, purpose, key, commitment, status
          FROM unnest(c_member, c_user, c_purpose, c_key, c_commitment, c_status)
            AS w(member, usr, purpose, key, commitment, status)
         WHERE status = 1 AND v_out[w.member] = 0;
        UPDATE subjects j
           SET privacy_version = j.privacy_version + 1,
               status = CASE w.status WHEN 2 THEN 2 ELSE j.status END
          FROM unnest(c_member, c_user, c_purpose, c_status) AS w(member, usr, purpose, status)
         WHERE w.status <> 1 AND v_out[w.member] = 0
           AND j.user_id = w.usr AND j.purpose = w.purpose;
    END IF;

    RETURN QUERY SELECT g, v_out[g], v_first[g], v_last[g], v_ms
                   FROM generate_series(1, p_members) AS g;
END $$;

-- postgres-es writes the public catalogue with its own INSERT. A trigger gives its rows what every
-- row of the log has: a position, an event id, an owner and a leaf hash.

-- The hash of one event, as the server computes it; a test holds the two together.
CREATE FUNCTION leaf_hash(
    p_event_id uuid, p_type text, p_id text, p_sequence bigint, p_event_type text,
    p_version text, p_user uuid, p_recorded_ms bigint, p_payload text, p_metadata text,
    p_sealed bytea
) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(
        '\x00'::bytea
        || int4send(16) || uuid_send(p_event_id)
        || int4send(octet_length(p_type)) || convert_to(p_type, 'UTF8')
        || int4send(octet_length(p_id)) || convert_to(p_id, 'UTF8')
        || int8send(p_sequence)
        || int4send(octet_length(p_event_type)) || convert_to(p_event_type, 'UTF8')
        || int4send(octet_length(p_version)) || convert_to(p_version, 'UTF8')
        || int4send(16) || uuid_send(p_user)
        || int8send(p_recorded_ms)
        || sha256(convert_to(p_payload, 'UTF8'))
        || sha256(convert_to(p_metadata, 'UTF8'))
        || sha256(coalesce(p_sealed, ''::bytea)))
$$;

-- A UUID of version 7 for a time in ms since the Unix epoch.
CREATE FUNCTION event_id_at(p_ms bigint) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(
        set_byte(
            set_byte(substring(int8send(p_ms) FROM 3) || substring(uuid_send(gen_random_uuid()) FROM 7),
                     6, 112 | (get_byte(uuid_send(gen_random_uuid()), 0) & 15)),
            8, 128 | (get_byte(uuid_send(gen_random_uuid()), 0) & 63)),
        'hex')::uuid
$$;

CREATE FUNCTION append_catalogue_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    c_catalogue CONSTANT uuid := '00000000-0000-0000-0000-000000000001';
    v_sequence bigint;
    v_position bigint;
    v_head_ms  bigint;
    v_ms       bigint;
BEGIN
    IF NEW.aggregate_type <> 'catalogue_product' THEN
        RAISE EXCEPTION 'only public catalogue events may be written this way'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO streams (aggregate_type, aggregate_id, user_id, sequence, position, committed_ms,
                         op, state_version)
    VALUES (NEW.aggregate_type, NEW.aggregate_id, c_catalogue, 0, 0, 0, 1, 0)
    ON CONFLICT DO NOTHING;
    SELECT s.sequence INTO v_sequence FROM streams s
     WHERE s.aggregate_type = NEW.aggregate_type AND s.aggregate_id = NEW.aggregate_id
       FOR NO KEY UPDATE;
    IF NEW.sequence <> v_sequence + 1 THEN
        -- The one code postgres-es takes for a conflict of writers.
        RAISE EXCEPTION 'the stream is at %, not at %', v_sequence, NEW.sequence - 1
            USING ERRCODE = 'unique_violation';
    END IF;
    SELECT h.position, h.committed_ms INTO v_position, v_head_ms FROM log_head h FOR UPDATE;
    v_position := v_position + 1;
    v_ms := greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, v_head_ms);

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

    UPDATE streams s SET sequence = NEW.sequence, position = v_position, committed_ms = v_ms,
           op = CASE WHEN NEW.sequence = 1 THEN 1 ELSE 2 END
     WHERE s.aggregate_type = NEW.aggregate_type AND s.aggregate_id = NEW.aggregate_id;
    INSERT INTO user_heads AS u (user_id, pos_other) VALUES (c_catalogue, v_position)
    ON CONFLICT (user_id) DO UPDATE SET pos_other = excluded.pos_other;
    UPDATE log_head SET position = v_position, committed_ms = v_ms;
    RETURN NEW;
END $$;
CREATE TRIGGER events_from_postgres_es BEFORE INSERT ON events
    FOR EACH ROW WHEN (NEW.position IS NULL) EXECUTE FUNCTION append_catalogue_event();

-- The interop role sees the catalogue and nothing else, and may not dawdle under the head lock.
ALTER TABLE events ENABLE ROW LEVEL SECURITY;
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_app') THEN
        CREATE POLICY events_app ON events FOR SELECT TO tidemark_app USING (true);
    END IF;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_interop') THEN
        CREATE POLICY events_catalogue ON events TO tidemark_interop
            USING (aggregate_type = 'catalogue_product')
            WITH CHECK (aggregate_type = 'catalogue_product');
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tidemark_interop', current_schema);
        GRANT SELECT (aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                      metadata),
              INSERT (aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                      metadata) ON events TO tidemark_interop;
    END IF;
END $$;

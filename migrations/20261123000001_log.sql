-- The log and everything that is kept in the same transaction with it (storage format 1).
--
-- Nothing here names a schema: the whole log lives in whichever schema comes first in the
-- search path, which is the unit in which logs can later be spread over several servers.

-- One row. Taking it FOR UPDATE is the last lock of every append: positions are handed out under
-- it, so they are dense and become visible in order.
CREATE TABLE log_head (
    one_row        boolean  PRIMARY KEY DEFAULT true CHECK (one_row),
    log_id         uuid     NOT NULL,
    storage_format int      NOT NULL,
    epoch          smallint NOT NULL,
    position       bigint   NOT NULL,
    committed_ms   bigint   NOT NULL
) WITH (fillfactor = 10);
INSERT INTO log_head (log_id, storage_format, epoch, position, committed_ms)
VALUES (gen_random_uuid(), 1, 1, 0, 0);

-- A new epoch begins after a failover that may have lost positions.
CREATE TABLE log_epochs (
    epoch          smallint PRIMARY KEY,
    first_position bigint   NOT NULL,
    started_ms     bigint   NOT NULL
);
INSERT INTO log_epochs VALUES (1, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint);

-- postgres-es's columns first, under its names, so that its queries run against this table.
CREATE TABLE events (
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    sequence       bigint      NOT NULL CHECK (sequence >= 1),
    event_type     text        NOT NULL,
    event_version  text        NOT NULL,
    payload        json        NOT NULL,
    metadata       json        NOT NULL,
    position       bigint      NOT NULL CHECK (position >= 1),
    event_id       uuid        NOT NULL,
    user_id        uuid        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    committed_ms   bigint      NOT NULL,
    sealed         bytea,
    leaf_hash      bytea       NOT NULL CHECK (octet_length(leaf_hash) = 32),
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
);
-- Ciphertext does not compress.
ALTER TABLE events ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX events_position ON events (position);
CREATE INDEX events_user_position ON events (user_id, position);

-- Head, snapshot and sync-feed row of a stream in one.
CREATE TABLE streams (
    aggregate_type text     NOT NULL,
    aggregate_id   text     NOT NULL,
    user_id        uuid     NOT NULL,
    sequence       bigint   NOT NULL,
    position       bigint   NOT NULL,
    committed_ms   bigint   NOT NULL,
    op             smallint NOT NULL, -- 1 create, 2 update, 3 delete
    origin         uuid,              -- the installation that made the last change
    state_version  int      NOT NULL, -- of the fold; a stale one is refolded on read
    state_sealed   bytea,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITH (fillfactor = 85);
ALTER TABLE streams ALTER COLUMN state_sealed SET STORAGE EXTERNAL;
CREATE INDEX streams_feed ON streams (user_id, aggregate_type, position);

-- What a request was answered, by keyed hash of its id: codes, ids and positions only.
CREATE TABLE receipts (
    user_id      uuid   NOT NULL,
    scope        text   NOT NULL,
    hmac         bytea  NOT NULL,
    content_hmac bytea,
    outcome      text   NOT NULL,
    position     bigint,           -- of the member's last event; null where nothing was appended
    created_ms   bigint NOT NULL,
    PRIMARY KEY (user_id, scope, hmac)
);
CREATE INDEX receipts_without_events ON receipts (created_ms) WHERE position IS NULL;

-- Uniqueness and lookup by keyed hash: identities, client ids, the one open session.
CREATE TABLE reservations (
    scope          text  NOT NULL,
    hmac           bytea NOT NULL,
    key_id         uuid,             -- of the server key that made the hash, where one did
    user_id        uuid  NOT NULL,
    aggregate_type text,             -- null: the marker of an erased identity
    aggregate_id   text,
    PRIMARY KEY (scope, hmac)
);
CREATE INDEX reservations_user ON reservations (user_id);

-- The current keys of a person, without key material. Every append that seals something checks
-- under the head lock that its key is still the active one.
CREATE TABLE subjects (
    user_id         uuid     NOT NULL,
    purpose         text     NOT NULL CHECK (purpose IN ('identity', 'activity', 'health')),
    key_id          uuid     NOT NULL,
    commitment      bytea    NOT NULL, -- what the event that announced the key committed to
    status          smallint NOT NULL, -- 1 active, 2 to be destroyed, 3 destroyed and purged
    privacy_version bigint   NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, purpose)
);

-- How far a person's data has moved, by class of reader.
CREATE TABLE user_heads (
    user_id     uuid   PRIMARY KEY,
    health_seq  bigint NOT NULL DEFAULT 0, -- changing health batches: the wire's watermark
    received_seq bigint NOT NULL DEFAULT 0, -- health batches received, changing or not
    pos_health  bigint NOT NULL DEFAULT 0,
    pos_session bigint NOT NULL DEFAULT 0,
    pos_other   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

-- Packed, sealed samples of one person in one range of start times.
CREATE TABLE health_segments (
    user_id     uuid     NOT NULL,
    lane        smallint NOT NULL DEFAULT 0,
    lo_ms       bigint   NOT NULL,
    hi_ms       bigint   NOT NULL,
    n           int      NOT NULL,
    segment_id  uuid     NOT NULL,
    version     int      NOT NULL, -- what `cols_sealed` is bound to
    ids_version int      NOT NULL, -- what `ids_sealed` is bound to: ids outlive many rewrites
    format      smallint NOT NULL,
    folds       bytea    NOT NULL, -- 4 keyed bytes a record id, to find lossless deletions
    cols_sealed bytea    NOT NULL,
    ids_sealed  bytea    NOT NULL,
    PRIMARY KEY (user_id, lane, lo_ms)
) WITH (fillfactor = 80, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE health_segments ALTER COLUMN folds SET STORAGE EXTERNAL;
ALTER TABLE health_segments ALTER COLUMN cols_sealed SET STORAGE EXTERNAL;
ALTER TABLE health_segments ALTER COLUMN ids_sealed SET STORAGE EXTERNAL;

-- Deletions of records that were never seen, by keyed hash: a late create must not revive them.
CREATE TABLE health_tombstones (
    user_id uuid  NOT NULL,
    hmac    bytea NOT NULL,
    PRIMARY KEY (user_id, hmac)
);

-- App installations and what each has told us it holds. Not a fold of the log.
CREATE TABLE installations (
    user_id      uuid   NOT NULL,
    device_hmac  bytea  NOT NULL,
    installation uuid   NOT NULL,
    last_seq     bigint NOT NULL DEFAULT 0,
    created_ms   bigint NOT NULL,
    PRIMARY KEY (user_id, device_hmac)
);
CREATE TABLE acknowledgements (
    user_id      uuid   NOT NULL,
    installation uuid   NOT NULL,
    run          bigint NOT NULL,
    position     bigint NOT NULL,
    acked_ms     bigint NOT NULL,
    PRIMARY KEY (user_id, installation, run)
);

-- The log is append-only even for a bug with every privilege.
CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % is refused', TG_OP
        USING ERRCODE = 'TM000';
END $$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION events_are_append_only();
CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION events_are_append_only();

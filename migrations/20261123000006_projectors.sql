-- The read side: everything here and in the generation schemas p_<name>_g<N> is plaintext,
-- disposable and rebuilt from the log. Rows, progress and checkpoint of a projector commit in one
-- transaction, so they live in one database, which may be another one than the log's.

CREATE SCHEMA projector;
-- Views of the live generations, for ad-hoc queries. The server itself reads a pinned generation.
CREATE SCHEMA live;

CREATE TABLE projector.generations (
    projector       text        NOT NULL,
    generation      integer     NOT NULL CHECK (generation > 0),
    compute_version integer     NOT NULL,
    -- Fixed when the generation is created; a person's shard is the last byte of their id mod this.
    shards          smallint    NOT NULL CHECK (shards BETWEEN 1 AND 256),
    state           text        NOT NULL CHECK (state IN ('building', 'live', 'retired')),
    created_at      timestamptz NOT NULL DEFAULT now(),
    activated_at    timestamptz,
    retired_at      timestamptz,
    PRIMARY KEY (projector, generation)
);
CREATE UNIQUE INDEX one_live_generation ON projector.generations (projector) WHERE state = 'live';

-- How far each shard has come, and who works on it. Owner and lease only decide who tries. What
-- decides who wins is the update that moves position from the value a worker started from, under
-- the fence it was given: a worker that was declared dead and comes back matches no row.
CREATE TABLE projector.checkpoints (
    projector   text        NOT NULL,
    generation  integer     NOT NULL,
    shard       smallint    NOT NULL,
    position    bigint      NOT NULL DEFAULT 0,
    fence       bigint      NOT NULL DEFAULT 0,
    owner       uuid,
    lease_until timestamptz,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projector, generation, shard),
    FOREIGN KEY (projector, generation) REFERENCES projector.generations ON DELETE CASCADE
) WITH (fillfactor = 20);

CREATE TABLE projector.user_progress (
    projector  text    NOT NULL,
    generation integer NOT NULL,
    user_id    uuid    NOT NULL,
    -- The person's health watermark after the last upload in the rows. Never falls.
    health_seq bigint  NOT NULL,
    -- The last event of the person that the projector listened to.
    position   bigint  NOT NULL,
    PRIMARY KEY (projector, generation, user_id),
    FOREIGN KEY (projector, generation) REFERENCES projector.generations ON DELETE CASCADE
);

-- People whose events a projector failed on. Their rows stay as they were before `position` and
-- their later events wait in the log; everybody else goes on.
CREATE TABLE projector.parked (
    projector  text        NOT NULL,
    generation integer     NOT NULL,
    user_id    uuid        NOT NULL,
    position   bigint      NOT NULL,
    -- A class of error, never content.
    error      text        NOT NULL,
    attempts   integer     NOT NULL DEFAULT 1,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projector, generation, user_id),
    FOREIGN KEY (projector, generation) REFERENCES projector.generations ON DELETE CASCADE
);

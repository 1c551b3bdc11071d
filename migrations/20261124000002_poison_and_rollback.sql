-- Read side only. What a projector cannot handle must never stop more than one person: attempts
-- are counted before they are made, so that an event which takes the process down with it is
-- found as well; events that an operator has skipped are known per generation, so that answers
-- can say that something is missing. And a generation that was taken back is not built again.

ALTER TABLE projector.checkpoints
    -- Workers that took the shard since it last moved or was seen idle. One that is still counted
    -- when the next one comes has died or fell silent while it worked.
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    -- Up to here events are taken one at a time, because somebody died near here.
    ADD COLUMN careful_until bigint NOT NULL DEFAULT 0;

-- Events that were left out of a person's rows, as the log says: a fold of projection.event_skipped.
CREATE TABLE projector.skipped (
    projector  text    NOT NULL,
    generation integer NOT NULL,
    user_id    uuid    NOT NULL,
    position   bigint  NOT NULL,
    PRIMARY KEY (projector, generation, user_id, position),
    FOREIGN KEY (projector, generation) REFERENCES projector.generations ON DELETE CASCADE
);

-- Set when an operator rolls a generation back: its formulas are not rebuilt by themselves again.
ALTER TABLE projector.generations ADD COLUMN rejected boolean NOT NULL DEFAULT false;

-- Erasure of what is kept inline for one purpose of one person. The log itself stays as it is:
-- its events are unreadable once the key is gone. Refuses while the key is still active.
CREATE FUNCTION forget(p_user uuid, p_purpose text, p_types text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM subjects
                    WHERE user_id = p_user AND purpose = p_purpose AND status IN (2, 3)) THEN
        RAISE EXCEPTION 'the key is not destroyed' USING ERRCODE = 'TM002';
    END IF;
    DELETE FROM streams WHERE user_id = p_user AND aggregate_type = ANY (p_types);
    IF p_purpose = 'health' THEN
        DELETE FROM health_segments WHERE user_id = p_user;
        DELETE FROM health_tombstones WHERE user_id = p_user;
    ELSIF p_purpose = 'identity' THEN
        DELETE FROM receipts WHERE user_id = p_user;
        -- The identity itself stays as a marker without a stream: an erased account stays erased.
        UPDATE reservations SET aggregate_type = NULL, aggregate_id = NULL
         WHERE user_id = p_user AND scope = 'identity';
        DELETE FROM reservations WHERE user_id = p_user AND scope <> 'identity';
        DELETE FROM acknowledgements WHERE user_id = p_user;
        DELETE FROM installations WHERE user_id = p_user;
    END IF;
    -- The key bytes go before this is called: from here on nothing is left to do.
    UPDATE subjects SET status = 3 WHERE user_id = p_user AND purpose = p_purpose;
END $$;
DO $$
BEGIN
    REVOKE ALL ON FUNCTION forget FROM PUBLIC;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_app') THEN
        GRANT EXECUTE ON FUNCTION forget TO tidemark_app;
    END IF;
END $$;

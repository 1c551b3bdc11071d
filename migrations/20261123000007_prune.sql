-- Receipts of requests that appended nothing are kept for a while and then forgotten; those with
-- events stay for good.
CREATE FUNCTION prune_receipts(p_before_ms bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_pruned bigint;
BEGIN
    DELETE FROM receipts WHERE position IS NULL AND created_ms < p_before_ms;
    GET DIAGNOSTICS v_pruned = ROW_COUNT;
    RETURN v_pruned;
END $$;
DO $$
BEGIN
    REVOKE ALL ON FUNCTION prune_receipts FROM PUBLIC;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_app') THEN
        GRANT EXECUTE ON FUNCTION prune_receipts TO tidemark_app;
    END IF;
END $$;

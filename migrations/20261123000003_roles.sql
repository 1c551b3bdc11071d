-- Who may do what. The server works as `tidemark_app`, which can add to the log only by `append`;
-- postgres-es works as `tidemark_interop`, which can add public catalogue events and nothing else.
-- Roles belong to the whole cluster: another log in it may have made them already. Where the
-- migrating user may not create roles, the server works as that user, and the triggers alone keep
-- the log append-only (`tidemark doctor` says so).
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['tidemark_app', 'tidemark_interop'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = v_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE WARNING 'role % cannot be created by this user', v_role;
            END;
        END IF;
    END LOOP;

    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'tidemark_app') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO tidemark_app', current_schema);
        GRANT SELECT ON events, streams, log_head, log_epochs, receipts, reservations, subjects,
            user_heads, health_segments, health_tombstones TO tidemark_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON installations, acknowledgements TO tidemark_app;
        REVOKE ALL ON FUNCTION append FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION append TO tidemark_app;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION ops.archive_own_scratch()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    -- A view of the caller's by that name would run its functions with our rights.
    IF NOT EXISTS (
        SELECT
        FROM pg_class AS c
        WHERE c.relnamespace = pg_my_temp_schema() AND c.relname = 'archive_scratch' AND c.relkind = 'r'
            AND c.relowner = current_user::regrole::oid
    ) THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = 'call ops.archive_scratch first, in this session';
    END IF;
END;
$$;

COMMENT ON FUNCTION ops.archive_own_scratch() IS 'Refuses a temporary table that ops.archive_scratch has not made.';

REVOKE ALL ON FUNCTION ops.archive_own_scratch() FROM PUBLIC;

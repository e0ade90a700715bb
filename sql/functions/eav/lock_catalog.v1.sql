-- Two-key advisory locks of this schema are (0x656176 'eav', n): n = 0 to 4 the lanes, n = 1000 the
-- catalogue.
CREATE OR REPLACE FUNCTION eav.lock_catalog(p_exclusive boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_exclusive THEN
        PERFORM pg_advisory_xact_lock(6644086, 1000);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(6644086, 1000);
    END IF;
END;
$$;

COMMENT ON FUNCTION eav.lock_catalog(boolean) IS
'Until the transaction ends, flushes (shared) and changes that could orphan a value (exclusive) keep out of each other''s way.';

REVOKE ALL ON FUNCTION eav.lock_catalog(boolean) FROM PUBLIC;

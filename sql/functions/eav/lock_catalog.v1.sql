-- Two-key advisory locks of this schema: (0x656176 'eav', n). Lane locks use n = lane (0 to 31), the catalogue n = 1000.
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

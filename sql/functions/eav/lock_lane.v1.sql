CREATE OR REPLACE FUNCTION eav.lock_lane(p_lane integer)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_advisory_xact_lock_shared(6644086, p_lane);
$$;

COMMENT ON FUNCTION eav.lock_lane(integer) IS 'Until the transaction ends, no flush moves rows of this lane. Waits for one under way.';

REVOKE ALL ON FUNCTION eav.lock_lane(integer) FROM PUBLIC;

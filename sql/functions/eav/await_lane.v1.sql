CREATE OR REPLACE FUNCTION eav.await_lane(p_lane integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- As long as the longest pause of a flusher that finds nothing to do; less if the session waits less.
    c_longest CONSTANT interval := interval '100 ms';
    v_setting CONSTANT text := current_setting('lock_timeout');
BEGIN
    IF v_setting::interval NOT BETWEEN '1 us' AND c_longest THEN
        PERFORM set_config('lock_timeout', (extract(EPOCH FROM c_longest) * 1000)::integer::text, true);
    END IF;
    PERFORM pg_advisory_xact_lock(6644086, p_lane);
    PERFORM set_config('lock_timeout', v_setting, true);
EXCEPTION
    WHEN lock_not_available OR deadlock_detected THEN
        NULL; -- it is not ours, and nothing depends on that
END;
$$;

COMMENT ON FUNCTION eav.await_lane(integer) IS
'Until the transaction ends, no other flush moves rows of this lane. Waits for one under way, or for who asks for a position there, but not for long, and then goes without.';

REVOKE ALL ON FUNCTION eav.await_lane(integer) FROM PUBLIC;

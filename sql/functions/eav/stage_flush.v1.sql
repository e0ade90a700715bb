CREATE OR REPLACE FUNCTION eav.stage_flush(p_limit integer DEFAULT 50000)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_limit IS NULL OR p_limit < 1 THEN
        RAISE invalid_parameter_value USING MESSAGE = format('p_limit must be 1 or more, got %s', coalesce(p_limit::text, 'NULL'));
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'eav.stage_flush needs READ COMMITTED: under an older snapshot it would empty a slot of rows it cannot see';
    END IF;
    -- Values, rejections, checkpoint and marker are one transaction: a crash that loses its commit loses all of it, and the
    -- producer goes back to the checkpoint that is left (or the durable lane still holds the rows).
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM eav.lock_catalog(false);
    BEGIN
        RETURN eav.flush_lanes(p_limit);
    EXCEPTION
        WHEN check_violation THEN
            -- A partition is gone that the window still promised: look again, then such values are rejected as too_old.
            PERFORM ops.refresh_value_window();
    END;
    RETURN eav.flush_lanes(p_limit);
END;
$$;

COMMENT ON FUNCTION eav.stage_flush(integer) IS
'Moves staged values to entity_values_ts and entity_jsonb, what cannot be stored to entity_values_rejected, with the checkpoint, in one transaction. Returns the rows moved: at most p_limit, or one whole producer transaction if that is larger.';

REVOKE ALL ON FUNCTION eav.stage_flush(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.stage_flush(integer) TO eav_jobs;

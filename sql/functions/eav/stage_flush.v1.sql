CREATE OR REPLACE FUNCTION eav.stage_flush(p_limit integer DEFAULT 50000)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_moved bigint := 0;
BEGIN
    IF p_limit IS NULL OR p_limit < 1 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_limit must be 1 or more, got %s', coalesce(p_limit::text, 'NULL'));
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'eav.stage_flush needs READ COMMITTED: under an older snapshot it would empty a slot of rows it cannot see';
    END IF;
    -- Values, rejections, checkpoint and marker are one transaction: a crash that loses its commit loses all of it,
    -- and the producer goes back to the checkpoint that is left (or the durable lane still holds the rows). A
    -- transaction that has written something else keeps its own setting.
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    PERFORM eav.lock_catalog(false);
    BEGIN
        RETURN eav.flush_lanes(p_limit);
    EXCEPTION
        WHEN check_violation THEN
            -- A partition is gone that the window still promised: look again, then its values are rejected as
            -- too_old.
            PERFORM ops.refresh_value_window();
            RETURN eav.flush_lanes(p_limit);
        WHEN data_corrupted THEN
            -- The flush's own books, not a value. Perhaps somebody has rewritten a slot (VACUUM FULL), and the rows are
            -- not where the plan says: then a new one helps. If not, this raises again.
            RAISE WARNING '%: once more, with a new plan', sqlerrm;
            RETURN eav.flush_lanes(p_limit, p_replan => true);
        WHEN data_exception OR program_limit_exceeded OR internal_error THEN
            -- A value that no check foresaw. It must not stop everybody: the oldest transaction of each lane goes
            -- alone, and one that fails alone goes where somebody will look at it.
            RAISE WARNING 'a flush failed, one producer transaction of each lane is tried alone: % (%)', sqlerrm, sqlstate;
    END;
    FOR v_lane IN 0..4 LOOP
        BEGIN
            v_moved := v_moved + eav.flush_lanes(1, v_lane);
        EXCEPTION
            WHEN data_corrupted THEN
                RAISE;
            WHEN data_exception OR program_limit_exceeded OR internal_error THEN
                RAISE WARNING 'a producer transaction of lane % is quarantined: % (%)', v_lane, sqlerrm, sqlstate;
                v_moved := v_moved + eav.flush_lanes(1, v_lane, true);
        END;
    END LOOP;
    RETURN v_moved;
END;
$$;

COMMENT ON FUNCTION eav.stage_flush(integer) IS
'Moves staged values to entity_values_ts and entity_jsonb, what cannot be stored to entity_values_rejected, with the checkpoint, in one transaction. Returns the rows moved: at most p_limit, but of each lane at least one whole producer transaction.';

REVOKE ALL ON FUNCTION eav.stage_flush(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.stage_flush(integer) TO eav_jobs;

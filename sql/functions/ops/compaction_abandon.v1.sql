CREATE OR REPLACE FUNCTION ops.compaction_abandon(
    p_compaction_id bigint, p_error text, p_wait interval DEFAULT '200 ms'
)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old regclass;
    v_new regclass;
BEGIN
    SELECT to_regclass(o.partition), to_regclass(ops.compaction_twin(o.partition)) INTO STRICT v_old, v_new
    FROM ops.compactions AS o
    WHERE o.compaction_id = p_compaction_id AND o.status IN ('copying', 'copied');
    PERFORM set_config('lock_timeout', (extract(EPOCH FROM p_wait) * 1000)::integer::text, true);
    IF v_old IS NOT NULL THEN
        EXECUTE format('DROP TRIGGER IF EXISTS compacting ON %s', v_old);
    END IF;
    IF v_new IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_new);
    END IF;
    UPDATE ops.compactions
    SET status = 'abandoned', finished_at = clock_timestamp(), error = left(p_error, 2000)
    WHERE compaction_id = p_compaction_id;
END;
$$;

COMMENT ON FUNCTION ops.compaction_abandon(bigint, text, interval) IS
'Takes back what is there of a compaction that is not done: the partition stays as it is. Raises lock_not_available after p_wait: try again.';

REVOKE ALL ON FUNCTION ops.compaction_abandon(bigint, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_abandon(bigint, text, interval) TO eav_jobs;

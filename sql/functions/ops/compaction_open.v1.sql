CREATE OR REPLACE FUNCTION ops.compaction_open(p_partition regclass)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_compaction_id bigint;
BEGIN
    -- A lock of the session: it ends with the backend, however that ends.
    IF NOT pg_try_advisory_lock(6644087, p_partition::oid::integer) THEN
        RETURN NULL;
    END IF;
    -- Under the lock: another session may have done it a moment ago.
    IF NOT EXISTS (SELECT FROM ops.compactable() AS c WHERE c.partition = p_partition) THEN
        PERFORM pg_advisory_unlock(6644087, p_partition::oid::integer);
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('%s is not due for compaction', p_partition),
            HINT = 'SELECT * FROM ops.compactable()';
    END IF;
    SELECT o.compaction_id INTO v_compaction_id
    FROM ops.compactions AS o
    WHERE o.partition = p_partition::text AND o.status IN ('copying', 'copied');
    IF v_compaction_id IS NULL THEN
        INSERT INTO ops.compactions (started_at, status, partition, bytes_before, index_bytes_before)
        VALUES (clock_timestamp(), 'copying', p_partition::text, pg_relation_size(p_partition), pg_indexes_size(p_partition))
        RETURNING compaction_id INTO v_compaction_id;
    END IF;
    RETURN v_compaction_id;
END;
$$;

COMMENT ON FUNCTION ops.compaction_open(regclass) IS
'The compaction of a partition, begun now or by a run that was interrupted, locked for this session; NULL if another session has it.';

REVOKE ALL ON FUNCTION ops.compaction_open(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_open(regclass) TO eav_jobs;

CREATE OR REPLACE FUNCTION ops.restore_open(p_archive_id bigint)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_attached regclass;
BEGIN
    IF NOT pg_try_advisory_lock(6644088, p_archive_id::integer) THEN
        RETURN NULL;
    END IF;
    SELECT a.* INTO STRICT v_archive FROM ops.partition_archives AS a WHERE a.archive_id = p_archive_id;
    SELECT i.inhrelid::regclass INTO v_attached
    FROM pg_inherits AS i
    WHERE i.inhparent = v_archive.parent_table::regclass AND i.inhrelid = to_regclass(v_archive.partition);
    IF v_attached IS NULL THEN
        SELECT b.partition INTO v_attached
        FROM ops.partition_bounds(v_archive.parent_table::regclass) AS b
        WHERE b.starts_at < v_archive.ends_at AND b.ends_at > v_archive.starts_at
        LIMIT 1;
    END IF;
    IF v_attached IS NOT NULL OR v_archive.verified_at IS NULL THEN
        PERFORM pg_advisory_unlock(6644088, p_archive_id::integer);
        RAISE object_not_in_prerequisite_state USING MESSAGE = coalesce(
            format('%s is attached: nothing to restore', v_attached),
            format('archive %s of %s was never verified', p_archive_id, v_archive.partition)
        );
    END IF;
    IF to_regclass(v_archive.partition) IS NOT NULL THEN
        IF v_archive.status IN ('verified', 'detached', 'restored') AND ops.archive_table(v_archive) IS NOT NULL THEN
            PERFORM ops.archive_settle();
            RETURN 'attach';
        END IF;
        PERFORM pg_advisory_unlock(6644088, p_archive_id::integer);
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('there is a table %s that is no partition: rename it first', v_archive.partition);
    END IF;
    RETURN 'load';
END;
$$;

COMMENT ON FUNCTION ops.restore_open(bigint) IS
'Whether an archive can be restored: ''load'' if its rows must be (then ops.restore_make), ''attach'' if its detached partition is still there; locked for this session, NULL if another session has it. Raises object_not_in_prerequisite_state if not.';

REVOKE ALL ON FUNCTION ops.restore_open(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_open(bigint) TO eav_jobs;

CREATE OR REPLACE FUNCTION ops.archive_leave(p_archive_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_table regclass;
BEGIN
    SELECT a.* INTO STRICT v_archive FROM ops.partition_archives AS a WHERE a.archive_id = p_archive_id FOR UPDATE;
    v_table := ops.archive_table(v_archive);
    -- The lock of a compaction, which the session keeps until the partition is detached, in several transactions.
    IF v_table IS NULL OR NOT pg_try_advisory_lock(6644087, v_table::oid::integer) THEN
        RETURN false;
    END IF;
    IF NOT EXISTS (SELECT FROM ops.archive_leaving(v_archive.partition) AS l WHERE l.archive_id = p_archive_id)
        -- A copy and a trigger of a compaction would be left behind: that one is gone on with first.
        OR EXISTS (
            SELECT FROM ops.compactions AS c WHERE c.partition = v_archive.partition AND c.status IN ('copying', 'copied')
        ) THEN
        PERFORM pg_advisory_unlock(6644087, v_table::oid::integer);
        RETURN false;
    END IF;
    UPDATE ops.partition_archives
    SET leaving_at = coalesce(leaving_at, clock_timestamp())
    WHERE archive_id = p_archive_id;
    -- Before it is detached: late values are rejected then, with a reason, and no flush meets a table without the partition.
    PERFORM ops.refresh_value_window();
    RETURN true;
END;
$$;

COMMENT ON FUNCTION ops.archive_leave(bigint) IS
'Announces that a partition is going to be detached, and locks it for this session against compactions; false if it must not be, or not yet.';

REVOKE ALL ON FUNCTION ops.archive_leave(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_leave(bigint) TO eav_jobs;

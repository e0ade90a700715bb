CREATE OR REPLACE FUNCTION ops.archive_drop(p_archive_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_table regclass;
BEGIN
    -- Rows that were committed after the snapshot of a REPEATABLE READ transaction would go unseen.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING MESSAGE = 'partitions are dropped in READ COMMITTED only';
    END IF;
    SELECT a.* INTO v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status = 'detached' AND a.published_at IS NOT NULL AND a.differs_at IS NULL
        -- The job archive-partitions has looked for its files, today.
        AND a.looked_at > now() - interval '26 hours'
    FOR UPDATE SKIP LOCKED;
    -- Another run is at it, or has done it.
    IF NOT FOUND OR NOT EXISTS (
        SELECT
        FROM ops.partition_policies AS p
        WHERE p.parent_table = v_archive.parent_table AND v_archive.ends_at < now() - p.retention
            AND coalesce(v_archive.keep_until, '-infinity') < now()
    ) THEN
        RETURN false;
    END IF;
    v_table := ops.archive_table(v_archive);
    IF v_table IS NOT NULL THEN
        -- From here on nobody writes, not even its owner, until it is gone: what is compared is what is dropped.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_table);
        IF EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = v_table) THEN
            RAISE WARNING 'partition % is attached again and kept', v_table;
            RETURN false;
        END IF;
        IF NOT ops.archive_compare(p_archive_id) THEN
            UPDATE ops.partition_archives SET differs_at = clock_timestamp() WHERE archive_id = p_archive_id;
            RAISE WARNING 'partition % is not as it was archived and kept: it is archived again first', v_table;
            RETURN false;
        END IF;
        EXECUTE format('DROP TABLE %s', v_table);
    END IF;
    UPDATE ops.partition_archives
    SET status = 'dropped', dropped_at = clock_timestamp(), marks = NULL, leaving_at = NULL
    WHERE archive_id = p_archive_id;
    RETURN true;
END;
$$;

COMMENT ON FUNCTION ops.archive_drop(bigint) IS
'Drops a detached partition past its retention if it holds, under lock, exactly what its verified archive holds; false if it is kept.';

REVOKE ALL ON FUNCTION ops.archive_drop(bigint) FROM PUBLIC;

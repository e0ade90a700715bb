CREATE OR REPLACE FUNCTION ops.archive_claim(p_bucket text, p_prefix text, p_found uuid, p_adopt boolean DEFAULT false)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_system bigint;
    v_database oid;
    v_store ops.archive_stores;
    v_mark CONSTANT uuid := gen_random_uuid();
BEGIN
    SELECT s.system_identifier INTO STRICT v_system FROM pg_control_system() AS s;
    SELECT d.oid INTO STRICT v_database FROM pg_database AS d WHERE d.datname = current_database();
    SELECT s.* INTO v_store FROM ops.archive_stores AS s WHERE s.bucket = p_bucket AND s.prefix = p_prefix FOR UPDATE;
    IF NOT p_adopt THEN
        IF v_store.bucket IS NULL AND p_found IS NOT NULL THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = format('another database has its archive in s3://%s/%s', p_bucket, p_prefix);
        END IF;
        -- A table has another oid, and so seems to be another one.
        IF (v_store.system_identifier, v_store.database_oid) <> (v_system, v_database) THEN
            RAISE object_not_in_prerequisite_state USING MESSAGE = format(
                'this database was restored or moved since it wrote to s3://%s/%s', p_bucket, p_prefix
            );
        END IF;
        -- Each run changes the mark. The one that was there counts too: a run may have been killed before it left its own.
        IF p_found NOT IN (v_store.mark, v_store.mark_before) THEN
            RAISE object_not_in_prerequisite_state USING MESSAGE = format(
                'another database has written to s3://%s/%s since this one did: a copy of it, or the one that it is a copy of', p_bucket, p_prefix
            );
        END IF;
    ELSIF (v_store.system_identifier, v_store.database_oid) IS DISTINCT FROM (v_system, v_database) THEN
        UPDATE ops.partition_archives SET table_oid = to_regclass(partition) WHERE to_regclass(partition) IS NOT NULL;
    END IF;
    INSERT INTO ops.archive_stores AS s (bucket, prefix, mark, mark_before, system_identifier, database_oid, claimed_at)
    VALUES (p_bucket, p_prefix, v_mark, v_mark, v_system, v_database, clock_timestamp())
    ON CONFLICT (bucket, prefix) DO UPDATE
        SET mark = excluded.mark, mark_before = coalesce(p_found, s.mark), system_identifier = excluded.system_identifier,
            database_oid = excluded.database_oid, claimed_at = excluded.claimed_at;
    RETURN v_mark;
END;
$$;

COMMENT ON FUNCTION ops.archive_claim(text, text, uuid, boolean) IS
'The mark that a run is to leave in a folder where it has found p_found (NULL: none), so that of a database and its copy one notices the other; p_adopt takes the folder over. Raises object_not_in_prerequisite_state if another database has it.';

REVOKE ALL ON FUNCTION ops.archive_claim(text, text, uuid, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_claim(text, text, uuid, boolean) TO eav_jobs;

CREATE OR REPLACE FUNCTION ops.archive_claim(p_bucket text, p_prefix text, p_found uuid)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_store ops.archive_stores;
    v_wrong text;
BEGIN
    SELECT s.* INTO v_store FROM ops.archive_stores AS s WHERE s.bucket = p_bucket AND s.prefix = p_prefix FOR UPDATE;
    v_wrong := CASE
        WHEN v_store.bucket IS NULL AND p_found IS NOT NULL THEN 'another database has its archive in'
        WHEN v_store.adopting_at IS NOT NULL THEN 'an --adopt was interrupted, and is to be run again, of'
        -- A table has another oid, and so seems to be another one.
        WHEN v_store.identity <> ops.archive_identity() THEN 'this database was restored or moved since it wrote to'
        -- Each run changes the mark. The one that was there counts too: a run may have been killed before it left its own.
        WHEN p_found NOT IN (v_store.mark, v_store.mark_before)
            THEN 'another database, a copy of this one or the one that this is a copy of, has written since this one did to'
    END;
    IF v_wrong IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = format('%s s3://%s/%s', v_wrong, p_bucket, p_prefix);
    END IF;
    INSERT INTO ops.archive_stores AS s (bucket, prefix, mark, mark_before, identity, claimed_at)
    VALUES (p_bucket, p_prefix, gen_random_uuid(), coalesce(p_found, gen_random_uuid()), ops.archive_identity(), clock_timestamp())
    ON CONFLICT (bucket, prefix) DO UPDATE
        SET mark = excluded.mark, mark_before = coalesce(p_found, s.mark), claimed_at = excluded.claimed_at
    RETURNING s.* INTO v_store;
    RETURN v_store.mark;
END;
$$;

COMMENT ON FUNCTION ops.archive_claim(text, text, uuid) IS
'The mark that a run is to leave in a folder where it has found p_found (NULL: none, and nothing else), so that of a database and its copy one notices the other. Raises object_not_in_prerequisite_state if another database has the folder.';

REVOKE ALL ON FUNCTION ops.archive_claim(text, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_claim(text, text, uuid) TO eav_jobs;

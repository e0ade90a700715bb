CREATE OR REPLACE FUNCTION ops.archive_take_over(p_bucket text, p_prefix text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before bigint [];
BEGIN
    SELECT s.identity INTO v_before FROM ops.archive_stores AS s WHERE s.bucket = p_bucket AND s.prefix = p_prefix FOR UPDATE;
    IF v_before IS DISTINCT FROM ops.archive_identity() THEN
        -- By name, once: the oids are those of another database.
        UPDATE ops.partition_archives SET table_oid = to_regclass(partition) WHERE to_regclass(partition) IS NOT NULL;
    END IF;
    -- Until archive_taken_over no run archives there.
    INSERT INTO ops.archive_stores AS s (bucket, prefix, mark, mark_before, identity, claimed_at, adopting_at)
    VALUES (
        p_bucket, p_prefix, gen_random_uuid(), gen_random_uuid(), ops.archive_identity(), clock_timestamp(), clock_timestamp()
    )
    ON CONFLICT (bucket, prefix) DO UPDATE SET identity = excluded.identity, adopting_at = excluded.adopting_at;
END;
$$;

COMMENT ON FUNCTION ops.archive_take_over(text, text) IS
'Begins to take a folder over from another database, or from what this one was: for the owner only.';

REVOKE ALL ON FUNCTION ops.archive_take_over(text, text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION ops.archive_taken_over(p_bucket text, p_prefix text, p_found uuid)
RETURNS uuid
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.archive_stores
    SET mark = gen_random_uuid(), mark_before = coalesce(p_found, mark), adopting_at = NULL, claimed_at = clock_timestamp()
    WHERE bucket = p_bucket AND prefix = p_prefix
    RETURNING mark;
$$;

COMMENT ON FUNCTION ops.archive_taken_over(text, text, uuid) IS
'Ends what ops.archive_take_over began, and returns the mark to leave in the folder, where p_found was.';

REVOKE ALL ON FUNCTION ops.archive_taken_over(text, text, uuid) FROM PUBLIC;

CREATE OR REPLACE FUNCTION ops.restore_table(p_partition text, p_archive_id bigint)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Short, so that names of its indexes are not cut off, which then would keep what is left of it.
    SELECT format('%I.%I', p.ident[1], format('restoring_%s', p_archive_id))
    FROM (SELECT parse_ident(p_partition) AS ident) AS p;
$$;

COMMENT ON FUNCTION ops.restore_table(text, bigint) IS
'The name of the table that a partition, given as schema.name, is restored into before it is attached.';

REVOKE ALL ON FUNCTION ops.restore_table(text, bigint) FROM PUBLIC;

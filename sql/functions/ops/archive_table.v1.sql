CREATE OR REPLACE FUNCTION ops.archive_table(p_archive ops.partition_archives)
RETURNS regclass
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::regclass
    FROM pg_class AS c
    WHERE c.oid = to_regclass(p_archive.partition) AND c.oid = p_archive.table_oid;
$$;

COMMENT ON FUNCTION ops.archive_table(ops.partition_archives) IS
'The table that was archived; NULL if it is gone, also when there is another one of its name.';

REVOKE ALL ON FUNCTION ops.archive_table(ops.partition_archives) FROM PUBLIC;

CREATE OR REPLACE FUNCTION ops.restore_table(p_partition text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%I.%I', p.ident[1], p.ident[2] || '_restoring')
    FROM (SELECT parse_ident(p_partition) AS ident) AS p;
$$;

COMMENT ON FUNCTION ops.restore_table(text) IS
'The name of the table that a partition, given as schema.name, is restored into before it is attached.';

REVOKE ALL ON FUNCTION ops.restore_table(text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION ops.compaction_twin(p_partition text)
RETURNS text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%I.%I', p.ident[1], p.ident[2] || '_compacting')
    FROM (SELECT parse_ident(p_partition) AS ident) AS p;
$$;

COMMENT ON FUNCTION ops.compaction_twin(text) IS
'The name of the copy that a partition, given as schema.name, is compacted into.';

REVOKE ALL ON FUNCTION ops.compaction_twin(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_twin(text) TO eav_jobs;

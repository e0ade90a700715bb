CREATE OR REPLACE FUNCTION ops.release_partitions(p_parent text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_template text;
BEGIN
    DELETE FROM partman.part_config WHERE parent_table = p_parent RETURNING template_table INTO v_template;
    IF v_template IS NOT NULL THEN
        EXECUTE format('DROP TABLE %I.%I', split_part(v_template, '.', 1), split_part(v_template, '.', 2));
    END IF;
    DELETE FROM ops.partition_policies WHERE parent_table = p_parent;
END;
$$;

COMMENT ON FUNCTION ops.release_partitions(text) IS
'Undoes ops.partition_by_time: pg_partman forgets the table, whose partitions and rows stay.';

REVOKE ALL ON FUNCTION ops.release_partitions(text) FROM PUBLIC;

-- lint: ignore-file trigger-unused: it is the trigger of a partition while that is compacted
CREATE OR REPLACE FUNCTION ops.compaction_mirror()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Gone if somebody dropped it: then the compaction will notice, and no flush must fail for it.
    v_copy CONSTANT regclass := to_regclass(ops.compaction_twin(format('%I.%I', tg_table_schema, tg_table_name)));
BEGIN
    IF v_copy IS NOT NULL THEN
        EXECUTE format('INSERT INTO %s SELECT ($1).*', v_copy) USING new;
    END IF;
    RETURN NULL;
END;
$$;

COMMENT ON FUNCTION ops.compaction_mirror() IS
'Trigger of a partition that is being compacted: what comes late goes into the copy too, in the same transaction.';

REVOKE ALL ON FUNCTION ops.compaction_mirror() FROM PUBLIC;

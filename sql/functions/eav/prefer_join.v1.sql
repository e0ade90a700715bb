-- A slot has no statistics, so that the planner takes its rows for a handful, and cannot know what it costs to look a
-- row up in the catalogue for each: 2.4 us, as much as reading and hashing 300 bytes of it.
CREATE OR REPLACE FUNCTION eav.prefer_join(p_lookups bigint, p_table regclass)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_lookup CONSTANT bigint := 300;
    v_hash CONSTANT boolean := pg_relation_size(p_table) < c_lookup * p_lookups;
BEGIN
    PERFORM
        set_config('enable_hashjoin', v_hash::text, true),
        set_config('enable_nestloop', (NOT v_hash)::text, true);
END;
$$;

COMMENT ON FUNCTION eav.prefer_join(bigint, regclass) IS
'For the statements that follow in the calling function, which has SET clauses for the same settings: join by reading all of p_table, or by p_lookups look-ups in its index, whichever is cheaper.';

REVOKE ALL ON FUNCTION eav.prefer_join(bigint, regclass) FROM PUBLIC;

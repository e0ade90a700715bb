CREATE OR REPLACE FUNCTION eav.plan_cut(p_through xid8, p_rows bigint, p_first tid[], p_last tid[])
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'through', p_through,
        'rows', p_rows,
        'slots', (
            SELECT jsonb_object_agg(s.slot - 1, jsonb_build_array(s.first, s.last))
            FROM unnest(p_first, p_last) WITH ORDINALITY AS s (first, last, slot)
            WHERE s.first IS NOT NULL
        )
    );
$$;

COMMENT ON FUNCTION eav.plan_cut(xid8, bigint, tid[], tid[]) IS
'One cut of eav.plan_lane: through which transaction, how many rows, and of each slot the first and the last.';

REVOKE ALL ON FUNCTION eav.plan_cut(xid8, bigint, tid[], tid[]) FROM PUBLIC;

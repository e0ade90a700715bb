CREATE OR REPLACE FUNCTION eav.batch_condition(p_through xid8, p_except xid8[], p_old_through xid8, p_old_except xid8[])
RETURNS text
LANGUAGE sql
STABLE
STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    -- Every staged row is held against it four times: mostly nothing was under way, and then nothing is looked for. The
    -- OR costs nothing, and without it the planner would expect a twentieth of the rows.
    SELECT
        format('s.batch <= %L::xid8', p_through)
        || CASE WHEN cardinality(p_except) > 0 THEN format(' AND s.batch <> ALL(%L::xid8[])', p_except) ELSE '' END
        || format(' AND (s.batch > %L::xid8 OR s.batch = ANY(%L::xid8[]))', p_old_through, p_old_except)
$$;

COMMENT ON FUNCTION eav.batch_condition(xid8, xid8[], xid8, xid8[]) IS
'As SQL text, of staging rows s: up to the transaction p_through without p_except, and not what was flushed already, up to p_old_through without p_old_except.';

REVOKE ALL ON FUNCTION eav.batch_condition(xid8, xid8[], xid8, xid8[]) FROM PUBLIC;

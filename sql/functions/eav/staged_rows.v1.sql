CREATE OR REPLACE FUNCTION eav.staged_rows(p_slots oid[], p_parameter integer DEFAULT 1)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- By their place in the file, which needs neither a scan of the backlog nor a join that the planner, without
    -- statistics, takes for tiny: as a nested loop one took four minutes for 40 000 rows.
    SELECT string_agg(
        format(
            'SELECT s.tableoid AS slot, s.ctid AS at, s.* FROM %s AS s WHERE s.ctid = ANY('
            || 'ARRAY(SELECT x.at FROM unnest($%s, $%s) AS x (slot, at) WHERE x.slot = %s))',
            d.slot::regclass, p_parameter, p_parameter + 1, d.slot
        ),
        ' UNION ALL '
    )
    FROM (SELECT DISTINCT u.slot FROM unnest(p_slots) AS u (slot)) AS d;
$$;

COMMENT ON FUNCTION eav.staged_rows(oid[], integer) IS
'The query, as SQL text, that reads rows of staging slots by their place. Its parameter p_parameter is their slots, the next one their ctids.';

REVOKE ALL ON FUNCTION eav.staged_rows(oid[], integer) FROM PUBLIC;

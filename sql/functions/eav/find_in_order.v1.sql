-- lint: ignore-file dynamic-sql: p_id and p_from were written by eav.find_ids, of names and values as %L literals
-- Many matches, or nothing that an index serves: along the primary key until there are enough.
CREATE OR REPLACE FUNCTION eav.find_in_order(p_id text, p_from text, p_after bigint, p_limit integer)
RETURNS bigint[]
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off
SET enable_seqscan = off
AS $$
DECLARE
    v_ids bigint[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(p.id ORDER BY p.id) FROM (SELECT %1$s AS id FROM %2$s AND %1$s > %3$L::bigint ORDER BY 1 LIMIT %4$s) AS p',
        p_id, p_from, p_after, p_limit
    ) INTO v_ids;
    RETURN v_ids;
END;
$$;

COMMENT ON FUNCTION eav.find_in_order(text, text, bigint, integer) IS
'The first p_limit entities behind p_after of a condition of eav.find_ids, in order; NULL: none.';

REVOKE ALL ON FUNCTION eav.find_in_order(text, text, bigint, integer) FROM PUBLIC;

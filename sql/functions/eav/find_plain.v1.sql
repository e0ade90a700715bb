-- lint: ignore-file dynamic-sql: written here, of values as %L literals, and by eav.find_entities (p_attrs)
-- Planned at each call with the tenant and the values in it: whether the GIN index or the key of a small tenant is the
-- way in depends on both. Beside the GIN index what the primary key knows of a tenant is hardly worth adding, and the
-- planner, which guesses that 1 % match, overrates it: hence the price of an index entry.
CREATE OR REPLACE FUNCTION eav.find_plain(
    p_tenant_id bigint, p_filter jsonb, p_after bigint, p_limit integer, p_few integer, p_attrs text,
    OUT o_matches bigint, OUT o_ids bigint[], OUT o_times timestamptz[], OUT o_values jsonb[]
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET cpu_index_tuple_cost = 1
SET work_mem = '64MB'
SET jit = off
AS $$
BEGIN
    -- Materialized, so that no LIMIT tempts it, and yet read only as far as it is wanted.
    EXECUTE format(
        'WITH c AS MATERIALIZED (SELECT e.entity_id, e.observed_at, e.hot_attrs, e.hot_volatile FROM eav.entity_jsonb AS e '
        || 'WHERE e.tenant_id = %L::bigint AND e.hot_attrs @> %L::jsonb AND e.entity_id > %L::bigint) '
        || 'SELECT max(e.matches), array_agg(e.entity_id), array_agg(e.observed_at), array_agg(%s) FROM ('
        || 'SELECT q.*, count(*) OVER () AS matches FROM (SELECT c.* FROM c LIMIT %s) AS q ORDER BY q.entity_id LIMIT %s) AS e',
        p_tenant_id, p_filter, p_after, p_attrs, p_few + 1, p_limit
    ) INTO o_matches, o_ids, o_times, o_values;
END;
$$;

COMMENT ON FUNCTION eav.find_plain(bigint, jsonb, bigint, integer, integer, text) IS
'Entities of a tenant that contain p_filter, behind p_after, p_limit of them in order, with p_attrs, an expression of their row e. More than p_few matches: o_matches says so, and the rest is not to be used.';

REVOKE ALL ON FUNCTION eav.find_plain(bigint, jsonb, bigint, integer, integer, text) FROM PUBLIC;

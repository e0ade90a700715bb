-- One plan for every tenant and every filter, so it must be the one that serves them all: the GIN index of the tenant's
-- partition, and nothing else. The planner, which guesses that 1 % match, would add what the primary key knows of the
-- tenant or walk through it; a price on every index entry that is not looked for keeps it from that.
CREATE OR REPLACE FUNCTION eav.find_plain(
    p_tenant_id bigint, p_filter jsonb, p_after bigint, p_limit integer, p_few integer, p_hidden text[],
    OUT o_matches bigint, OUT o_ids bigint[], OUT o_times timestamptz[], OUT o_values jsonb[]
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET cpu_index_tuple_cost = 1
SET jit = off
AS $$
BEGIN
    -- Materialized, so that no LIMIT tempts it. The page begins outside, so that the primary key has nothing to offer.
    WITH c AS MATERIALIZED (
        SELECT e.entity_id, e.observed_at, e.hot_attrs, e.hot_volatile
        FROM eav.entity_jsonb AS e
        WHERE e.tenant_id = p_tenant_id AND e.hot_attrs @> p_filter
    )
    SELECT
        max(s.matches),
        array_agg(s.entity_id),
        array_agg(s.observed_at),
        array_agg(s.hot_attrs || s.hot_volatile - p_hidden)
    INTO o_matches, o_ids, o_times, o_values
    FROM (
        SELECT q.*, count(*) OVER () AS matches
        FROM (SELECT c.* FROM c WHERE c.entity_id > p_after LIMIT p_few + 1) AS q
        ORDER BY q.entity_id
        LIMIT p_limit
    ) AS s;
END;
$$;

COMMENT ON FUNCTION eav.find_plain(bigint, jsonb, bigint, integer, integer, text[]) IS
'Entities of a tenant that contain p_filter, behind p_after, p_limit of them, with their hot values but p_hidden. More than p_few matches: o_matches says so, and the rest is not to be used.';

REVOKE ALL ON FUNCTION eav.find_plain(bigint, jsonb, bigint, integer, integer, text[]) FROM PUBLIC;

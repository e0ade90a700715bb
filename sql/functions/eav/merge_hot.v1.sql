CREATE OR REPLACE FUNCTION eav.merge_hot(
    p_tenants bigint[], p_entities bigint[], p_names text[], p_values jsonb[], p_times timestamptz[]
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = on
AS $$
DECLARE
    v_changed bigint;
BEGIN
    -- One row an entity, however many events it had; in key order, so that two flushes never wait for each other
    -- in a ring.
    INSERT INTO eav.entity_jsonb AS e (tenant_id, entity_id, observed_at, hot_attrs, hot_times)
    SELECT
        l.tenant_id,
        l.entity_id,
        max(l.observed_at),
        jsonb_object_agg(l.name, l.value),
        jsonb_object_agg(l.name, (extract(epoch FROM l.observed_at) * 1000000)::bigint)
    FROM (
        SELECT DISTINCT ON (i.tenant_id, i.entity_id, i.name) i.*
        FROM unnest(p_tenants, p_entities, p_names, p_values, p_times) AS i (tenant_id, entity_id, name, value, observed_at)
        ORDER BY i.tenant_id, i.entity_id, i.name, i.observed_at DESC, i.value DESC
    ) AS l
    GROUP BY l.tenant_id, l.entity_id
    ORDER BY l.tenant_id, l.entity_id
    ON CONFLICT (tenant_id, entity_id) DO UPDATE
        SET
            observed_at = greatest(e.observed_at, excluded.observed_at),
            (hot_attrs, hot_times) = (
                SELECT
                    e.hot_attrs || jsonb_object_agg(k.name, excluded.hot_attrs -> k.name),
                    e.hot_times || jsonb_object_agg(k.name, excluded.hot_times -> k.name)
                FROM unnest(eav.hot_newer(e.hot_attrs, e.hot_times, excluded.hot_attrs, excluded.hot_times)) AS k (name)
            )
        WHERE eav.hot_newer(e.hot_attrs, e.hot_times, excluded.hot_attrs, excluded.hot_times) IS NOT NULL;
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.merge_hot(bigint[], bigint[], text[], jsonb[], timestamptz[]) IS
'Brings entity_jsonb up to these values, given as parallel arrays; latest event wins; returns the entities changed.';

REVOKE ALL ON FUNCTION eav.merge_hot(bigint[], bigint[], text[], jsonb[], timestamptz[]) FROM PUBLIC;

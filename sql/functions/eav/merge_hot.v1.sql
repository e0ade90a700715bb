CREATE OR REPLACE FUNCTION eav.merge_hot(
    p_tenants bigint[], p_entities bigint[], p_names text[], p_values jsonb[], p_times timestamptz[],
    p_volatile boolean[], p_moving boolean
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = on
AS $$
DECLARE
    v_changed bigint;
    v_oldest timestamptz;
    v_newest timestamptz;
    v_uniform boolean;
BEGIN
    -- What is new is nearly always newer than all that its entity has. Where one comparison of two columns can tell,
    -- it takes the place of one for each attribute, which costs half as much again as the update itself.
    IF NOT p_moving THEN
        SELECT min(t.at), max(t.at) INTO v_oldest, v_newest FROM unnest(p_times) AS t (at);
        v_uniform := v_oldest = v_newest;
        IF NOT v_uniform THEN
            SELECT bool_and(g.uniform) INTO v_uniform
            FROM (
                SELECT min(i.observed_at) = max(i.observed_at) AS uniform
                FROM unnest(p_tenants, p_entities, p_times) AS i (tenant_id, entity_id, observed_at)
                GROUP BY i.tenant_id, i.entity_id
            ) AS g;
        END IF;
    END IF;
    -- One row an entity, however many events it had; in key order, so that two flushes never wait for each other
    -- in a ring. Of several values of an attribute JSON keeps the last.
    INSERT INTO eav.entity_jsonb AS e (tenant_id, entity_id, observed_at, hot_attrs, hot_volatile, hot_times)
    SELECT
        l.tenant_id,
        l.entity_id,
        max(l.observed_at),
        coalesce(jsonb_object_agg(l.name, l.value) FILTER (WHERE NOT l.is_volatile), '{}'),
        coalesce(jsonb_object_agg(l.name, l.value) FILTER (WHERE l.is_volatile), '{}'),
        jsonb_object_agg(l.name, (extract(epoch FROM l.observed_at) * 1000000)::bigint)
    FROM (
        SELECT i.*
        FROM unnest(p_tenants, p_entities, p_names, p_values, p_times, p_volatile)
            AS i (tenant_id, entity_id, name, value, observed_at, is_volatile)
        ORDER BY i.tenant_id, i.entity_id, i.observed_at, i.value
    ) AS l
    GROUP BY l.tenant_id, l.entity_id
    ORDER BY l.tenant_id, l.entity_id
    ON CONFLICT (tenant_id, entity_id) DO UPDATE
        SET
            observed_at = greatest(e.observed_at, excluded.observed_at),
            hot_attrs = CASE
                WHEN v_uniform AND excluded.observed_at > e.observed_at THEN e.hot_attrs || excluded.hot_attrs
                ELSE eav.hot_replace(e.hot_attrs, excluded.hot_attrs, eav.hot_newer(
                    e.hot_attrs, e.hot_volatile, e.hot_times, excluded.hot_attrs, excluded.hot_volatile, excluded.hot_times
                ))
            END,
            hot_volatile = CASE
                WHEN v_uniform AND excluded.observed_at > e.observed_at THEN e.hot_volatile || excluded.hot_volatile
                ELSE eav.hot_replace(e.hot_volatile, excluded.hot_volatile, eav.hot_newer(
                    e.hot_attrs, e.hot_volatile, e.hot_times, excluded.hot_attrs, excluded.hot_volatile, excluded.hot_times
                ))
            END,
            hot_times = CASE
                WHEN v_uniform AND excluded.observed_at > e.observed_at THEN e.hot_times || excluded.hot_times
                ELSE eav.hot_replace(e.hot_times, excluded.hot_times, eav.hot_newer(
                    e.hot_attrs, e.hot_volatile, e.hot_times, excluded.hot_attrs, excluded.hot_volatile, excluded.hot_times
                ))
            END
        WHERE (v_uniform AND excluded.observed_at > e.observed_at)
            OR eav.hot_newer(
                e.hot_attrs, e.hot_volatile, e.hot_times, excluded.hot_attrs, excluded.hot_volatile, excluded.hot_times
            ) IS NOT NULL;
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.merge_hot(bigint[], bigint[], text[], jsonb[], timestamptz[], boolean[], boolean) IS
'Brings entity_jsonb up to these values, given as parallel arrays; latest event wins; returns the entities changed. p_moving: some of these attributes may still be in the other column, and leave it.';

REVOKE ALL ON FUNCTION eav.merge_hot(bigint[], bigint[], text[], jsonb[], timestamptz[], boolean[], boolean)
FROM PUBLIC;

CREATE OR REPLACE FUNCTION eav.reconcile_hot_attrs(p_since timestamptz DEFAULT now() - interval '2 hours')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_attribute record;
    v_changed bigint := 0;
BEGIN
    -- Attribute by attribute: one range of the (tenant, attribute, time) index each, and memory for one at a time.
    FOR v_attribute IN
        SELECT a.tenant_id, a.attribute_id, a.name FROM eav.attributes AS a WHERE a.is_hot ORDER BY 1, 2
    LOOP
        SELECT v_changed + eav.merge_hot(
            array_agg(v_attribute.tenant_id), array_agg(l.entity_id), array_agg(v_attribute.name),
            array_agg(l.value), array_agg(l.observed_at)
        ) INTO v_changed
        FROM (
            SELECT DISTINCT ON (t.entity_id)
                t.entity_id, t.observed_at, eav.value_to_jsonb(t.value_number, t.value_text, t.value_bool, t.value_time) AS value
            FROM eav.entity_values_ts AS t
            WHERE t.tenant_id = v_attribute.tenant_id
                AND t.attribute_id = v_attribute.attribute_id
                AND t.observed_at >= p_since
            ORDER BY t.entity_id, t.observed_at DESC, value DESC
        ) AS l
        LEFT JOIN eav.entity_jsonb AS e ON e.tenant_id = v_attribute.tenant_id AND e.entity_id = l.entity_id
        -- Only what differs: an upsert that changes nothing would still lock its row until this transaction ends.
        WHERE e.tenant_id IS NULL OR eav.hot_newer(
            e.hot_attrs,
            e.hot_times,
            jsonb_build_object(v_attribute.name, l.value),
            jsonb_build_object(v_attribute.name, (extract(epoch FROM l.observed_at) * 1000000)::bigint)
        ) IS NOT NULL;
    END LOOP;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.reconcile_hot_attrs(timestamptz) IS
'The safety net: brings entity_jsonb up to the history since p_since; returns the entities that had to be corrected.';

REVOKE ALL ON FUNCTION eav.reconcile_hot_attrs(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.reconcile_hot_attrs(timestamptz) TO eav_jobs;

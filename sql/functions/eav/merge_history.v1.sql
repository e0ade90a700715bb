CREATE OR REPLACE FUNCTION eav.merge_history(
    p_attribute_id bigint, p_from timestamptz, p_to timestamptz, OUT o_changed bigint, OUT o_locked bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- The times are known when it is planned: partitions outside of them are not even looked at.
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
DECLARE
    v_attribute eav.attributes;
    v_moving boolean;
    v_portion record;
BEGIN
    o_changed := 0;
    o_locked := 0;
    SELECT a.* INTO v_attribute FROM eav.attributes AS a WHERE a.attribute_id = p_attribute_id AND a.is_hot;
    IF NOT found THEN
        RETURN;
    END IF;
    v_moving := EXISTS (
        SELECT FROM eav.hot_backfill AS b WHERE b.attribute_id = p_attribute_id AND b.tidied_at IS NULL
    );
    FOR v_portion IN
        SELECT
            array_agg(c.entity_id) AS entities, array_agg(c.value) AS values, array_agg(c.observed_at) AS times,
            count(*)::integer AS count
        FROM (
            SELECT n.*, (row_number() OVER (ORDER BY n.entity_id) - 1) / 5000 AS portion
            FROM (
                SELECT DISTINCT ON (t.entity_id)
                    t.entity_id, t.observed_at, eav.value_to_jsonb(t.value_number, t.value_text, t.value_bool, t.value_time) AS value
                FROM eav.entity_values_ts AS t
                WHERE t.tenant_id = v_attribute.tenant_id
                    AND t.attribute_id = p_attribute_id
                    AND t.observed_at >= p_from
                    AND t.observed_at < p_to
                    -- stored while the attribute was cold: no place for long texts
                    AND (t.value_text IS NULL OR length(t.value_text) <= 4096)
                ORDER BY t.entity_id, t.observed_at DESC, value DESC
            ) AS n
            LEFT JOIN eav.entity_jsonb AS e ON e.tenant_id = v_attribute.tenant_id AND e.entity_id = n.entity_id
            -- Only what differs: an upsert that changes nothing would still lock its row until this transaction ends.
            WHERE e.tenant_id IS NULL OR eav.hot_newer(
                e.hot_attrs,
                e.hot_volatile,
                e.hot_times,
                jsonb_build_object(v_attribute.name, n.value),
                '{}',
                jsonb_build_object(v_attribute.name, (extract(epoch FROM n.observed_at) * 1000000)::bigint)
            ) IS NOT NULL
        ) AS c
        GROUP BY c.portion
        ORDER BY c.portion
    LOOP
        o_locked := o_locked + v_portion.count;
        o_changed := o_changed + eav.merge_hot(
            array_fill(v_attribute.tenant_id, ARRAY[v_portion.count]), v_portion.entities,
            array_fill(v_attribute.name, ARRAY[v_portion.count]), v_portion.values, v_portion.times,
            array_fill(v_attribute.is_volatile, ARRAY[v_portion.count]), v_moving
        );
    END LOOP;
END;
$$;

COMMENT ON FUNCTION eav.merge_history(bigint, timestamptz, timestamptz) IS
'Brings entity_jsonb up to the history of one hot attribute between two times. Says how many entities changed, and how many it keeps locked: some may have got a newer value meanwhile.';

REVOKE ALL ON FUNCTION eav.merge_history(bigint, timestamptz, timestamptz) FROM PUBLIC;

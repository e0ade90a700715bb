CREATE OR REPLACE FUNCTION eav.latest_cold(
    p_tenant_id bigint, p_attribute_id bigint, p_entities bigint[], p_since interval
)
RETURNS TABLE (entity_id bigint, value jsonb)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
-- With its values in it a plan leaves out partitions, and looks entities up in a hash.
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
DECLARE
    v_left bigint[] := p_entities;
    v_found bigint[];
    v_values jsonb[];
    v_upto timestamptz := clock_timestamp() + interval '5 minutes';
    v_end CONSTANT timestamptz := clock_timestamp() - p_since;
    v_width interval := greatest(p_since / 1024, interval '10 minutes');
BEGIN
    -- From the newest slice of the window back, each four times as long: who reports often is found at once, and only
    -- who has no value costs the whole window.
    WHILE v_upto > v_end AND cardinality(v_left) > 0 LOOP
        SELECT array_agg(l.entity_id), array_agg(l.value)
        INTO v_found, v_values
        FROM (
            SELECT DISTINCT ON (v.entity_id)
                v.entity_id, eav.value_to_jsonb(v.value_number, v.value_text, v.value_bool, v.value_time) AS value
            FROM eav.entity_values_ts AS v
            WHERE v.tenant_id = p_tenant_id
                AND v.attribute_id = p_attribute_id
                AND v.observed_at >= greatest(v_upto - v_width, v_end)
                AND v.observed_at < v_upto
                AND v.entity_id = ANY(v_left)
            ORDER BY v.entity_id, v.observed_at DESC, value DESC
        ) AS l;
        IF v_found IS NOT NULL THEN
            RETURN QUERY SELECT f.entity_id, f.value FROM unnest(v_found, v_values) AS f (entity_id, value);
            v_left := ARRAY(SELECT e FROM unnest(v_left) AS e EXCEPT SELECT f FROM unnest(v_found) AS f);
        END IF;
        v_upto := v_upto - v_width;
        v_width := v_width * 4;
    END LOOP;
END;
$$;

COMMENT ON FUNCTION eav.latest_cold(bigint, bigint, bigint[], interval) IS
'The newest value of an attribute for each of these entities that has one in the last p_since.';

REVOKE ALL ON FUNCTION eav.latest_cold(bigint, bigint, bigint[], interval) FROM PUBLIC;

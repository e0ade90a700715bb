-- lint: ignore-file dynamic-sql: what is executed was written by eav.filter_parts, of names and values as %L literals
CREATE OR REPLACE FUNCTION eav.count_entities(p_filter jsonb, p_since interval DEFAULT interval '24 hours')
RETURNS bigint
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- For the statements written here, which look up a name or two: eav_app's force_custom_plan would plan each of them at
-- every call. The queries of the filter are dynamic, and planned with their values in any case.
SET plan_cache_mode = force_generic_plan
SET jit = off
SET work_mem = '64MB'
AS $$
DECLARE
    c_page CONSTANT integer := 50000;
    v_tenant_id CONSTANT bigint := eav.current_tenant();
    v_parts record;
    v_ids bigint[];
    v_after bigint := '-9223372036854775808'::bigint;
    v_count bigint := 0;
BEGIN
    IF v_tenant_id IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM eav.check_find(1, p_since);
    SELECT f.* INTO v_parts FROM eav.filter_parts(v_tenant_id, p_filter) AS f;
    IF cardinality(v_parts.o_cold) = 0 AND v_parts.o_needs_hot THEN
        EXECUTE format(
            'SELECT count(*) FROM eav.entity_jsonb AS e WHERE e.tenant_id = %L::bigint AND %s', v_tenant_id, v_parts.o_hot
        ) INTO v_count;
        RETURN v_count;
    ELSIF cardinality(v_parts.o_cold) = 0 THEN
        EXECUTE format(
            'SELECT count(*) FROM eav.entities AS n LEFT JOIN eav.entity_jsonb AS e '
            || 'ON e.tenant_id = %1$L::bigint AND e.entity_id = n.entity_id WHERE n.tenant_id = %1$L::bigint AND %2$s',
            v_tenant_id, v_parts.o_hot
        ) INTO v_count;
        RETURN v_count;
    END IF;
    LOOP
        v_ids := eav.find_ids(v_tenant_id, p_filter, v_after, c_page, p_since, 2000);
        v_count := v_count + cardinality(v_ids);
        EXIT WHEN cardinality(v_ids) < c_page;
        v_after := v_ids[c_page];
    END LOOP;
    RETURN v_count;
END;
$$;

COMMENT ON FUNCTION eav.count_entities(jsonb, interval) IS
'How many entities of the tenant of this transaction fulfil a filter of eav.find_entities.';

REVOKE ALL ON FUNCTION eav.count_entities(jsonb, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.count_entities(jsonb, interval) TO eav_app, eav_analyst;

CREATE OR REPLACE FUNCTION eav.filter_parts(
    p_tenant_id bigint, p_filter jsonb,
    OUT o_hot text, OUT o_indexed boolean, OUT o_needs_hot boolean, OUT o_cold bigint[], OUT o_conditions text[],
    OUT o_needs_cold integer
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text;
    v_asked jsonb;
    v_part record;
    v_condition text;
    v_absent boolean;
BEGIN
    o_hot := 'true';
    o_indexed := false;
    o_needs_hot := false;
    o_cold := '{}';
    o_conditions := '{}';
    IF jsonb_typeof(p_filter) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'filter: must be a JSON object of attribute names and conditions';
    ELSIF length(p_filter::text) > 65536 OR (SELECT count(*) > 50 FROM jsonb_object_keys(p_filter)) THEN
        RAISE invalid_parameter_value USING MESSAGE = 'filter: at most 50 attributes and 64 KiB';
    END IF;
    FOR v_name, v_asked IN SELECT f.key, f.value FROM jsonb_each(p_filter) AS f LOOP
        -- One by one: as a join, for which the planner expects a hundred names, all attributes of the tenant are read.
        SELECT v.* INTO v_part FROM eav.attribute_value(p_tenant_id, v_name) AS v;
        IF v_part.attribute_id IS NULL THEN
            RAISE invalid_parameter_value USING MESSAGE = format('filter: there is no attribute %s', v_name);
        END IF;
        v_absent := jsonb_typeof(v_asked) = 'object' AND v_asked @> '{"exists": false}';
        IF v_part.is_hot THEN
            v_condition := eav.filter_condition(
                v_name, v_part.data_type, v_part.value, v_part.indexed, v_asked
            );
            o_hot := format('%s AND %s', o_hot, v_condition);
            o_needs_hot := o_needs_hot OR NOT v_absent;
            o_indexed := o_indexed OR (v_part.indexed IS NOT NULL AND (
                jsonb_typeof(v_asked) <> 'object' OR v_asked ? 'eq' OR v_asked ? 'in'
            ));
        ELSE
            o_cold := o_cold || v_part.attribute_id;
            o_conditions := o_conditions || eav.filter_condition(
                v_name, v_part.data_type, format('c%s.value', cardinality(o_cold)), NULL, v_asked
            );
            o_needs_cold := CASE WHEN v_absent THEN o_needs_cold ELSE cardinality(o_cold) END;
        END IF;
    END LOOP;
END;
$$;

COMMENT ON FUNCTION eav.filter_parts(bigint, jsonb) IS
'A filter as SQL: on the hot values of a row e of entity_jsonb, and on c1.value, c2.value … of each cold attribute; whether an index serves it, and what every entity it finds must have: a hot value, a value of cold attribute number o_needs_cold.';

REVOKE ALL ON FUNCTION eav.filter_parts(bigint, jsonb) FROM PUBLIC;

CREATE OR REPLACE FUNCTION eav.upsert_hot_attrs(
    p_tenant_id bigint, p_entity_id bigint, p_attrs jsonb, p_observed_at timestamptz DEFAULT now()
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_names text[];
    v_values jsonb[];
    v_cold text;
    v_wrong text;
BEGIN
    IF jsonb_typeof(p_attrs) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'p_attrs must be a JSON object of attribute names and values';
    END IF;
    IF NOT isfinite(p_observed_at) OR p_observed_at > clock_timestamp() + interval '5 minutes' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('p_observed_at is in the future: %s', p_observed_at);
    END IF;
    SELECT
        array_agg(j.key),
        array_agg(j.value),
        min(j.key) FILTER (WHERE a.attribute_id IS NULL),
        min(j.key) FILTER (
            WHERE jsonb_typeof(j.value) <> CASE
                WHEN a.data_type IN ('number', 'integer') THEN 'number'
                WHEN a.data_type = 'boolean' THEN 'boolean'
                ELSE 'string'
            END OR length(j.value #>> '{}') > 4096
        )
    INTO v_names, v_values, v_cold, v_wrong
    FROM jsonb_each(p_attrs) AS j
    LEFT JOIN eav.attributes AS a ON a.tenant_id = p_tenant_id AND a.name = j.key AND a.is_hot;
    IF v_cold IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%s is not a hot attribute of tenant %s', v_cold, p_tenant_id);
    END IF;
    IF v_wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('the value of %s is not of its type, or too long', v_wrong);
    END IF;
    IF NOT EXISTS (SELECT FROM eav.entities AS e WHERE e.tenant_id = p_tenant_id AND e.entity_id = p_entity_id) THEN
        RAISE no_data_found USING MESSAGE = format('tenant %s has no entity %s', p_tenant_id, p_entity_id);
    END IF;
    RETURN eav.merge_hot(
        array_fill(p_tenant_id, ARRAY[coalesce(cardinality(v_names), 0)]),
        array_fill(p_entity_id, ARRAY[coalesce(cardinality(v_names), 0)]),
        v_names,
        v_values,
        array_fill(p_observed_at, ARRAY[coalesce(cardinality(v_names), 0)])
    );
END;
$$;

COMMENT ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) IS
'Sets hot values of one entity, observed at one time; a newer value stays. Returns 1 if something changed, else 0.';

REVOKE ALL ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) TO eav_jobs;

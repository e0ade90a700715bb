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
    v_volatile boolean[];
    v_moving boolean;
    v_cold text;
    v_wrong text;
    v_count integer;
BEGIN
    IF jsonb_typeof(p_attrs) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'p_attrs must be a JSON object of attribute names and values';
    END IF;
    IF p_observed_at IS NULL OR NOT isfinite(p_observed_at) OR p_observed_at > clock_timestamp() + interval '5 minutes' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_observed_at is in the future, or no time: %s', coalesce(p_observed_at::text, 'NULL'));
    END IF;
    -- As a flush does: what an attribute was before must not be gone by after a switch has waited for everybody.
    PERFORM eav.lock_catalog(false);
    SELECT
        array_agg(v.key),
        array_agg(eav.value_to_jsonb(v.number, v.text, v.bool, v.time)),
        array_agg(v.is_volatile),
        coalesce(bool_or(v.moving), false),
        min(v.key) FILTER (WHERE v.attribute_id IS NULL),
        -- The same rules as a flush has.
        min(format('the value of %s is refused: %s', v.key, v.reason)) FILTER (WHERE v.reason IS NOT NULL)
    INTO v_names, v_values, v_volatile, v_moving, v_cold, v_wrong
    FROM (
        SELECT
            t.*,
            eav.reject_reason(
                p_observed_at, t.number, t.text, t.bool, t.time, t.data_type, t.retired_at, t.min_value, t.max_value,
                least(t.max_length, 4096), t.allowed, t.schema, '-infinity', 'infinity'
            ) AS reason
        FROM (
            SELECT
                j.key,
                a.*,
                EXISTS (
                    SELECT FROM eav.hot_backfill AS b WHERE b.attribute_id = a.attribute_id AND b.tidied_at IS NULL
                ) AS moving,
                CASE WHEN jsonb_typeof(j.value) = 'number' THEN j.value::numeric END AS number,
                CASE WHEN jsonb_typeof(j.value) = 'boolean' THEN j.value::boolean END AS bool,
                CASE
                    WHEN jsonb_typeof(j.value) = 'string' AND a.data_type <> 'timestamp' THEN j.value #>> '{}'
                END AS text,
                CASE
                    WHEN a.data_type = 'timestamp' AND jsonb_typeof(j.value) = 'string'
                        THEN eav.try_timestamptz(j.value #>> '{}')
                END AS time
            FROM jsonb_each(p_attrs) AS j
            LEFT JOIN eav.attributes AS a ON a.tenant_id = p_tenant_id AND a.name = j.key AND a.is_hot
            OFFSET 0 -- each conversion once
        ) AS t
    ) AS v;
    IF v_cold IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%s is not a hot attribute of tenant %s', v_cold, p_tenant_id);
    END IF;
    IF v_wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = v_wrong;
    END IF;
    IF NOT EXISTS (SELECT FROM eav.entities AS e WHERE e.tenant_id = p_tenant_id AND e.entity_id = p_entity_id) THEN
        RAISE no_data_found USING MESSAGE = format('tenant %s has no entity %s', p_tenant_id, p_entity_id);
    END IF;
    v_count := coalesce(cardinality(v_names), 0);
    RETURN eav.merge_hot(
        array_fill(p_tenant_id, ARRAY[v_count]), array_fill(p_entity_id, ARRAY[v_count]), v_names, v_values,
        array_fill(p_observed_at, ARRAY[v_count]), v_volatile, v_moving
    );
END;
$$;

COMMENT ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) IS
'Sets hot values of one entity, observed at one time, by the rules a flush has for them; a newer value stays. Returns 1 if something changed, else 0.';

REVOKE ALL ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.upsert_hot_attrs(bigint, bigint, jsonb, timestamptz) TO eav_jobs;

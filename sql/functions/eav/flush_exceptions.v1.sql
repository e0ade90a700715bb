-- lint: ignore-file dynamic-sql: the query that gives the rows is built by eav.flush_lanes of literals
CREATE OR REPLACE FUNCTION eav.flush_exceptions(
    p_rows text, p_slots oid[], p_ctids tid[], p_starts_at timestamptz, p_ends_at timestamptz,
    OUT o_stored bigint, OUT o_rejected bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tenants bigint[];
    v_entities bigint[];
    v_names text[];
    v_values jsonb[];
    v_times timestamptz[];
    v_rows CONSTANT text := format(
        '(SELECT r.* FROM (%s) AS r INNER JOIN unnest($1, $2) AS x (slot, at) ON r.slot = x.slot AND r.at = x.at)', p_rows
    );
BEGIN
    -- Unknown names of tenants that register by themselves: the type of the first value is the type of the
    -- attribute.
    EXECUTE format(
        $sql$
        INSERT INTO eav.attributes (tenant_id, name, data_type)
        SELECT n.tenant_id, n.attribute, n.data_type
        FROM (
            SELECT f.*, row_number() OVER (PARTITION BY f.tenant_id ORDER BY f.attribute) AS number
            FROM (
                SELECT DISTINCT ON (r.tenant_id, r.attribute)
                    r.tenant_id, r.attribute, t.max_attributes,
                    CASE
                        WHEN r.value_number IS NOT NULL THEN 'number'
                        WHEN r.value_bool IS NOT NULL THEN 'boolean'
                        WHEN r.value_time IS NOT NULL THEN 'timestamp'
                        ELSE 'text'
                    END AS data_type
                FROM %s AS r
                INNER JOIN eav.tenants AS t ON r.tenant_id = t.tenant_id AND t.auto_register
                WHERE r.reason IS NULL AND r.attribute_id IS NULL AND length(r.attribute) BETWEEN 1 AND 200
                    AND num_nonnulls(r.value_number, r.value_bool, r.value_time, r.value_text) = 1
                    AND r.observed_at >= $3 AND r.observed_at < $4
                    AND NOT EXISTS (
                        SELECT FROM eav.attributes AS a WHERE a.tenant_id = r.tenant_id AND a.name = r.attribute
                    )
                ORDER BY r.tenant_id, r.attribute, r.source_id, r.source_offset
            ) AS f
        ) AS n
        WHERE n.number + (SELECT count(*) FROM eav.attributes AS a WHERE a.tenant_id = n.tenant_id) <= n.max_attributes
        ORDER BY n.tenant_id, n.attribute
        ON CONFLICT (tenant_id, name) DO NOTHING
        $sql$,
        v_rows
    ) USING p_slots, p_ctids, p_starts_at, p_ends_at;

    -- Judged once, in one statement: whatever changes meanwhile, a row is stored or rejected, never both,
    -- never neither.
    EXECUTE format(
        $sql$
        WITH resolved AS MATERIALIZED (
            SELECT
                r.*,
                coalesce(i.attribute_id, n.attribute_id) AS resolved_id
            FROM %s AS r
            LEFT JOIN eav.attributes AS i ON r.attribute_id = i.attribute_id AND r.tenant_id = i.tenant_id
            LEFT JOIN eav.attributes AS n
                ON r.attribute_id IS NULL AND r.tenant_id = n.tenant_id AND r.attribute = n.name
        ),

        typed AS MATERIALIZED (
            SELECT
                r.lane, r.source_id, r.source_offset, r.tenant_id, r.entity_id, r.attribute_id, r.resolved_id,
                r.observed_at, r.value_bool, r.value_number, r.attribute, r.reason, r.raw, r.value_text AS staged_text,
                a.name, a.is_hot, a.data_type, a.retired_at, a.min_value, a.max_value, a.max_length, a.allowed,
                CASE WHEN t.parsed IS NULL THEN r.value_text END AS value_text,
                coalesce(r.value_time, t.parsed) AS value_time
            FROM resolved AS r
            LEFT JOIN eav.attributes AS a ON r.resolved_id = a.attribute_id
            -- a time that was staged before its attribute was known to be one
            LEFT JOIN LATERAL (
                SELECT eav.try_timestamptz(r.value_text) AS parsed WHERE a.data_type = 'timestamp' AND r.value_time IS NULL
            ) AS t ON true
        ),

        judged AS MATERIALIZED (
            SELECT
                v.*,
                CASE
                    WHEN v.reason IS NOT NULL THEN v.reason
                    WHEN v.tenant_id IS NULL OR v.entity_id IS NULL OR (v.attribute_id IS NULL AND v.attribute IS NULL)
                        THEN 'missing_field'
                    WHEN NOT EXISTS (SELECT FROM eav.tenants AS t WHERE t.tenant_id = v.tenant_id) THEN 'unknown_tenant'
                    ELSE coalesce(
                        eav.reject_reason(
                            v.observed_at, v.value_number, v.value_text, v.value_bool, v.value_time, v.data_type, v.retired_at,
                            v.min_value, v.max_value, v.max_length, v.allowed, $3, $4
                        ),
                        CASE WHEN NOT EXISTS (
                            SELECT FROM eav.entities AS e WHERE e.tenant_id = v.tenant_id AND e.entity_id = v.entity_id
                        ) THEN 'unknown_entity' END
                    )
                END AS verdict
            FROM typed AS v
        ),

        stored AS (
            INSERT INTO eav.entity_values_ts (
                tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool, value_number, value_text
            )
            SELECT
                j.tenant_id, j.entity_id, j.resolved_id, j.observed_at, j.value_time, j.value_bool, j.value_number, j.value_text
            FROM judged AS j
            WHERE j.verdict IS NULL
            RETURNING 1
        ),

        kept AS (
            INSERT INTO eav.entity_values_rejected (
                source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool,
                reason, attribute, value_number, value_text, raw
            )
            SELECT
                j.source_id, j.source_offset, j.tenant_id, j.entity_id, j.attribute_id, j.observed_at,
                CASE WHEN j.staged_text IS NULL THEN j.value_time END, j.value_bool,
                j.verdict, j.attribute, j.value_number, j.staged_text, j.raw
            FROM judged AS j
            WHERE j.verdict IS NOT NULL
            RETURNING 1
        ),

        hot AS (
            SELECT j.* FROM judged AS j WHERE j.verdict IS NULL AND j.is_hot
        )

        SELECT
            (SELECT count(*) FROM stored),
            (SELECT count(*) FROM kept),
            array_agg(h.tenant_id), array_agg(h.entity_id), array_agg(h.name),
            array_agg(eav.value_to_jsonb(h.value_number, h.value_text, h.value_bool, h.value_time)), array_agg(h.observed_at)
        FROM hot AS h
        $sql$,
        v_rows
    )
    INTO o_stored, o_rejected, v_tenants, v_entities, v_names, v_values, v_times
    USING p_slots, p_ctids, p_starts_at, p_ends_at;

    PERFORM eav.merge_hot(v_tenants, v_entities, v_names, v_values, v_times);
END;
$$;

COMMENT ON FUNCTION eav.flush_exceptions(text, oid[], tid[], timestamptz, timestamptz) IS
'The part of a flush that takes thought: staged rows (p_rows, narrowed to these) with names to resolve, or with something wrong.';

REVOKE ALL ON FUNCTION eav.flush_exceptions(text, oid[], tid[], timestamptz, timestamptz) FROM PUBLIC;

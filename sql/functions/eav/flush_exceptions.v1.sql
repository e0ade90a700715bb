-- lint: ignore-file dynamic-sql: the query that gives the rows is built by eav.staged_rows of slots that exist
-- lint: ignore-file plpgsql-check-performance: VOLATILE it is, its statements are dynamic
CREATE OR REPLACE FUNCTION eav.flush_exceptions(
    p_slots oid[], p_ctids tid[], p_starts_at timestamptz, p_ends_at timestamptz,
    OUT o_stored bigint, OUT o_rejected bigint, OUT o_slots oid[], OUT o_ctids tid[]
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_sort = on
SET enable_hashjoin = on
SET enable_nestloop = on
AS $$
DECLARE
    v_rows CONSTANT text := format('(%s)', eav.staged_rows(p_slots));
BEGIN
    -- Unknown names of tenants that register by themselves: the type of the first value is the type of the
    -- attribute.
    EXECUTE format(
        $sql$
        INSERT INTO eav.attributes (tenant_id, name, data_type)
        WITH unknown AS MATERIALIZED (
            SELECT DISTINCT ON (r.tenant_id, r.attribute)
                r.tenant_id,
                r.attribute,
                CASE
                    WHEN r.value_number IS NOT NULL THEN 'number'
                    WHEN r.value_bool IS NOT NULL THEN 'boolean'
                    WHEN r.value_time IS NOT NULL THEN 'timestamp'
                    ELSE 'text'
                END AS data_type
            FROM %s AS r
            INNER JOIN eav.tenants AS t ON r.tenant_id = t.tenant_id AND t.auto_register
            LEFT JOIN eav.attributes AS a ON r.tenant_id = a.tenant_id AND r.attribute = a.name
            WHERE a.attribute_id IS NULL AND r.reason IS NULL AND r.attribute_id IS NULL
                AND length(r.attribute) BETWEEN 1 AND 200
                AND num_nonnulls(r.value_number, r.value_bool, r.value_time, r.value_text) = 1
                AND r.observed_at >= $3 AND r.observed_at < $4
            ORDER BY r.tenant_id, r.attribute, r.source_id, r.source_offset
        ),

        room AS MATERIALIZED (
            SELECT
                t.tenant_id,
                t.max_attributes
                - (SELECT count(*) FROM eav.attributes AS a WHERE a.tenant_id = t.tenant_id) AS free
            FROM eav.tenants AS t
            WHERE t.tenant_id IN (SELECT u.tenant_id FROM unknown AS u)
        )

        SELECT n.tenant_id, n.attribute, n.data_type
        FROM (
            SELECT u.*, row_number() OVER (PARTITION BY u.tenant_id ORDER BY u.attribute) AS number
            FROM unknown AS u
        ) AS n
        INNER JOIN room AS m ON n.tenant_id = m.tenant_id AND n.number <= m.free
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
                r.slot, r.at, r.source_id, r.source_offset, r.tenant_id, r.entity_id, r.attribute_id, r.resolved_id,
                r.observed_at, r.value_bool, r.value_number, r.attribute, r.reason, r.raw, r.value_text AS staged_text,
                a.data_type, a.retired_at, a.min_value, a.max_value, a.allowed, a.schema,
                CASE WHEN a.is_hot OR a.allowed IS NOT NULL THEN least(a.max_length, 4096) ELSE a.max_length END AS max_length,
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
                    WHEN v.reason IS NOT NULL THEN left(v.reason, 100)
                    WHEN v.tenant_id IS NULL OR v.entity_id IS NULL OR (v.attribute_id IS NULL AND v.attribute IS NULL)
                        THEN 'missing_field'
                    WHEN NOT EXISTS (SELECT FROM eav.tenants AS t WHERE t.tenant_id = v.tenant_id) THEN 'unknown_tenant'
                    ELSE coalesce(
                        eav.reject_reason(
                            v.observed_at, v.value_number, v.value_text, v.value_bool, v.value_time, v.data_type, v.retired_at,
                            v.min_value, v.max_value, v.max_length, v.allowed, v.schema, $3, $4
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
        )

        SELECT
            (SELECT count(*) FROM stored),
            (SELECT count(*) FROM kept),
            array_agg(j.slot),
            array_agg(j.at)
        FROM judged AS j
        WHERE j.verdict IS NULL
        $sql$,
        v_rows
    )
    INTO o_stored, o_rejected, o_slots, o_ctids
    USING p_slots, p_ctids, p_starts_at, p_ends_at;
END;
$$;

COMMENT ON FUNCTION eav.flush_exceptions(oid[], tid[], timestamptz, timestamptz) IS
'The part of a flush that takes thought: these staged rows, with names to resolve or with something wrong. Tells which it stored.';

REVOKE ALL ON FUNCTION eav.flush_exceptions(oid[], tid[], timestamptz, timestamptz) FROM PUBLIC;

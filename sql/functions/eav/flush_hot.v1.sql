-- lint: ignore-file dynamic-sql: the rows come from queries that eav.staged_rows or eav.flush_lanes has built
-- lint: ignore-file plpgsql-check-performance: VOLATILE it is, it calls eav.merge_hot
CREATE OR REPLACE FUNCTION eav.flush_hot(
    p_rows text, p_slots oid[], p_ctids tid[], p_stored_slots oid[], p_stored_ctids tid[]
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_hot text;
    v_tenants bigint[];
    v_entities bigint[];
    v_names text[];
    v_values jsonb[];
    v_times timestamptz[];
    v_volatile boolean[];
    v_moving boolean;
BEGIN
    v_hot := $sql$
        SELECT
            a.attribute_id, a.is_volatile, r.tenant_id, r.entity_id, a.name, r.observed_at,
            r.value_number, r.value_text, r.value_bool, r.value_time
        FROM ($sql$ || p_rows || $sql$) AS r
        INNER JOIN eav.attributes AS a ON r.attribute_id = a.attribute_id AND a.is_hot
        $sql$;
    IF cardinality(p_stored_slots) > 0 THEN
        -- What was an exception and is stored all the same, found by id or by name.
        v_hot := concat_ws(' UNION ALL ', v_hot, format(
            $sql$
            SELECT
                a.attribute_id, a.is_volatile, r.tenant_id, r.entity_id, a.name, r.observed_at, r.value_number,
                CASE WHEN a.data_type <> 'timestamp' THEN r.value_text END AS value_text,
                r.value_bool,
                CASE
                    WHEN a.data_type = 'timestamp' AND r.value_text IS NOT NULL
                        THEN eav.try_timestamptz(r.value_text)
                    ELSE r.value_time
                END AS value_time
            FROM (%s) AS r
            CROSS JOIN LATERAL (
                SELECT i.* FROM eav.attributes AS i
                WHERE i.attribute_id = r.attribute_id AND i.tenant_id = r.tenant_id
                UNION ALL
                SELECT n.* FROM eav.attributes AS n
                WHERE r.attribute_id IS NULL AND n.tenant_id = r.tenant_id AND n.name = r.attribute
            ) AS a
            WHERE a.is_hot
            $sql$,
            eav.staged_rows(p_stored_slots, 3)
        ));
    END IF;
    IF v_hot IS NULL THEN
        RETURN;
    END IF;
    -- Hot values come last, all in one order, so that two flushes cannot wait for each other in a ring; the
    -- latest of each only, and in portions, so that no array grows beyond what PostgreSQL takes.
    FOR v_tenants, v_entities, v_names, v_values, v_times, v_volatile, v_moving IN EXECUTE format(
        $sql$
        SELECT
            array_agg(c.tenant_id), array_agg(c.entity_id), array_agg(c.name), array_agg(c.value), array_agg(c.observed_at),
            array_agg(c.is_volatile),
            -- its values move from one column to the other: of this same snapshot, so that it fits is_volatile
            coalesce(bool_or(c.attribute_id = ANY(
                ARRAY(SELECT b.attribute_id FROM eav.hot_backfill AS b WHERE b.tidied_at IS NULL)
            )), false)
        FROM (
            SELECT l.*, (row_number() OVER (ORDER BY l.tenant_id, l.entity_id, l.name) - 1) / 5000 AS portion
            FROM (
                SELECT DISTINCT ON (v.tenant_id, v.entity_id, v.name) v.*
                FROM (
                    SELECT
                        h.attribute_id, h.is_volatile, h.tenant_id, h.entity_id, h.name, h.observed_at,
                        eav.value_to_jsonb(h.value_number, h.value_text, h.value_bool, h.value_time) AS value
                    FROM (%s) AS h
                ) AS v
                ORDER BY v.tenant_id, v.entity_id, v.name, v.observed_at DESC, v.value DESC
            ) AS l
        ) AS c
        GROUP BY c.portion
        ORDER BY c.portion
        $sql$,
        v_hot
    ) USING p_slots, p_ctids, p_stored_slots, p_stored_ctids
    LOOP
        PERFORM eav.merge_hot(v_tenants, v_entities, v_names, v_values, v_times, v_volatile, v_moving);
    END LOOP;
END;
$$;

COMMENT ON FUNCTION eav.flush_hot(text, oid[], tid[], oid[], tid[]) IS
'The part of a flush that brings hot values up to date: of the rows that the query p_rows (NULL: none) gives, whose parameters are p_slots and p_ctids, and of exceptions that were stored all the same.';

REVOKE ALL ON FUNCTION eav.flush_hot(text, oid[], tid[], oid[], tid[]) FROM PUBLIC;

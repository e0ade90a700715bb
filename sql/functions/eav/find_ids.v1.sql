-- lint: ignore-file dynamic-sql: what is executed was written by eav.filter_parts, of names and values as %L literals
-- Planned anew for each call, with the tenant and the values in it: one partition of the projection is left, and a
-- generic plan, which would serve no filter well, never comes to be.
CREATE OR REPLACE FUNCTION eav.find_ids(
    p_tenant_id bigint, p_filter jsonb, p_after bigint, p_limit integer, p_since interval, p_few integer
)
RETURNS bigint[]
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
AS $$
DECLARE
    v_index_cost CONSTANT text := current_setting('cpu_index_tuple_cost');
    v_parts record;
    v_from text;
    v_id text;
    v_after bigint := p_after;
    v_batch integer := p_limit;
    v_ids bigint[];
    v_found bigint[] := ARRAY[]::bigint[];
    v_cold text;
    v_complete boolean := false;
BEGIN
    SELECT f.* INTO v_parts FROM eav.filter_parts(p_tenant_id, p_filter) AS f;
    IF v_parts.o_needs_hot THEN
        v_id := 'e.entity_id';
        v_from := format('eav.entity_jsonb AS e WHERE e.tenant_id = %L::bigint AND %s', p_tenant_id, v_parts.o_hot);
    ELSE
        v_id := 'n.entity_id';
        v_from := format(
            'eav.entities AS n LEFT JOIN eav.entity_jsonb AS e ON e.tenant_id = %1$L::bigint AND e.entity_id = n.entity_id '
            || 'WHERE n.tenant_id = %1$L::bigint AND %2$s',
            p_tenant_id, v_parts.o_hot
        );
    END IF;

    IF v_parts.o_indexed AND p_few > 0 THEN
        -- The planner cannot know how many match (it guesses 1 %), and a LIMIT makes a wrong guess expensive. A
        -- materialized query is planned as if all rows were wanted, and yet read only as far as they are. As in
        -- eav.find_plain: what the primary key knows of a tenant is not worth adding to what the GIN index finds.
        PERFORM set_config('cpu_index_tuple_cost', '1', true);
        EXECUTE format(
            'WITH c AS MATERIALIZED (SELECT %1$s AS id FROM %2$s AND %1$s > %3$L::bigint) '
            || 'SELECT array_agg(p.id ORDER BY p.id) FROM (SELECT c.id FROM c LIMIT %4$s) AS p',
            v_id, v_from, p_after, p_few + 1
        ) INTO v_ids;
        PERFORM set_config('cpu_index_tuple_cost', v_index_cost, true);
        v_complete := coalesce(cardinality(v_ids), 0) <= p_few;
    END IF;
    IF cardinality(v_parts.o_cold) = 0 THEN
        IF NOT v_complete THEN
            v_ids := eav.find_in_order(v_id, v_from, p_after, p_limit);
        END IF;
        RETURN coalesce(v_ids[:p_limit], '{}');
    END IF;

    SELECT
        format(
            'SELECT array_agg(i.id ORDER BY i.id) FROM unnest($1) AS i (id) %s WHERE %s',
            string_agg(format(
                'LEFT JOIN eav.latest_cold(%L, %L, $1, %L::interval) AS c%s ON c%s.entity_id = i.id',
                p_tenant_id, u.attribute_id, p_since, u.number, u.number
            ), ' '),
            array_to_string(v_parts.o_conditions, ' AND ')
        )
    INTO v_cold
    FROM unnest(v_parts.o_cold) WITH ORDINALITY AS u (attribute_id, number);
    LOOP
        IF NOT v_complete THEN
            v_batch := least(greatest(v_batch, 100) * 4, 50000);
            IF v_parts.o_needs_hot OR v_parts.o_needs_cold IS NULL THEN
                v_ids := eav.find_in_order(v_id, v_from, v_after, v_batch);
            ELSE
                -- Nothing hot to begin with: who has a value of the cold attribute at all.
                EXECUTE format(
                    'SELECT array_agg(p.id ORDER BY p.id) FROM (SELECT DISTINCT v.entity_id AS id FROM eav.entity_values_ts AS v '
                    || 'INNER JOIN (SELECT %7$s AS id FROM %8$s) AS h ON v.entity_id = h.id '
                    || 'WHERE v.tenant_id = %1$L::bigint AND v.attribute_id = %2$L::bigint AND v.observed_at >= %3$L::timestamptz '
                    || 'AND v.observed_at < %4$L::timestamptz AND v.entity_id > %5$L::bigint ORDER BY 1 LIMIT %6$s) AS p',
                    p_tenant_id, v_parts.o_cold[v_parts.o_needs_cold], clock_timestamp() - p_since,
                    clock_timestamp() + interval '5 minutes', v_after, v_batch, v_id, v_from
                ) INTO v_ids;
            END IF;
        END IF;
        EXIT WHEN v_ids IS NULL;
        v_after := v_ids[cardinality(v_ids)];
        v_complete := v_complete OR cardinality(v_ids) < v_batch;
        EXECUTE v_cold INTO v_ids USING v_ids;
        v_found := v_found || v_ids;
        EXIT WHEN v_complete OR cardinality(v_found) >= p_limit;
    END LOOP;
    RETURN v_found[:p_limit];
END;
$$;

COMMENT ON FUNCTION eav.find_ids(bigint, jsonb, bigint, integer, interval, integer) IS
'The first p_limit entities of a tenant behind p_after that a filter of eav.find_entities lets through, in order. Up to p_few matches are all fetched by index, if one serves; 0: there are more.';

REVOKE ALL ON FUNCTION eav.find_ids(bigint, jsonb, bigint, integer, interval, integer) FROM PUBLIC;

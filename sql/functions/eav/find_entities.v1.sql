-- lint: ignore-file dynamic-sql: what is executed is written here, of names and values as %L literals
-- lint: ignore-file plpgsql-check-warning-extra: the columns are what the one query returns
--
-- Entities of one tenant by what they are now
--
-- A filter is a JSON object; an entity has to fulfil all of it. Each key is the name of an attribute of the tenant,
-- each value a condition:
--
--   {"status": "online"}                            has this value
--   {"cpu.percent": {"gte": 80, "lt": 95}}          eq, ne, gt, gte, lt, lte: all that are given hold
--   {"site": {"in": ["berlin", "oslo"]}}            has one of these
--   {"firmware": {"exists": false}}                 has no value; {"exists": true}: has one, whichever
--
-- Values are compared as what the attribute is: numbers exactly (8 is 8.0), texts by code point, times as moments
-- ("2026-11-21T20:55:42Z"), true and false. Without a value no condition holds but {"exists": false}.
--
-- A hot attribute is looked up in eav.entity_jsonb: eq and in through the GIN index, ranges and all of volatile
-- attributes in what these leave. A cold attribute has the newest value of the entity in the last p_since, and is
-- looked at last. Unknown names, operators and values of a wrong type are errors.
--
-- It runs with its owner's rights, because row-level security keeps the index from being used: jsonb @> is not
-- leakproof. So it takes data, never SQL, and pins the tenant itself: app.tenant_id, or no rows.
CREATE OR REPLACE FUNCTION eav.find_entities(
    p_filter jsonb,
    p_after bigint DEFAULT NULL,
    p_limit integer DEFAULT 100,
    p_return text[] DEFAULT NULL,
    p_since interval DEFAULT interval '24 hours'
)
RETURNS TABLE (entity_id bigint, observed_at timestamptz, attrs jsonb)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- For the statements written here: eav_app's force_custom_plan would plan each of them at every call. A filter that
-- is not plain makes dynamic queries, which are planned with their values in any case.
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    -- Up to so many matches all of them are fetched by index and sorted, which needs no luck.
    c_few CONSTANT integer := 2000;
    v_tenant_id CONSTANT bigint := eav.current_tenant();
    v_after CONSTANT bigint := coalesce(p_after, '-9223372036854775808'::bigint);
    v_plain boolean := false;
    v_matches bigint;
    v_ids bigint[];
    v_times timestamptz[];
    v_values jsonb[];
    v_attrs text;
    v_joins text;
    v_unknown text;
BEGIN
    IF v_tenant_id IS NULL THEN
        RETURN;
    END IF;
    PERFORM eav.check_find(p_limit, p_since);
    IF p_return IS NULL THEN
        -- What is on its way out is not shown. What moves to the other column is newer where it comes from.
        SELECT
            format(
                '((coalesce(e.hot_attrs, ''{}'') || coalesce(e.hot_volatile, ''{}'')%s) - %L::text[])',
                string_agg(format(' || jsonb_strip_nulls(jsonb_build_object(%1$L, e.hot_attrs -> %1$L))', a.name), '')
                    FILTER (WHERE a.is_hot AND a.is_volatile AND b.tidied_at IS NULL),
                coalesce(array_agg(a.name) FILTER (WHERE NOT a.is_hot), '{}')
            )
        INTO v_attrs
        FROM eav.hot_backfill AS b
        INNER JOIN eav.attributes AS a ON b.attribute_id = a.attribute_id
        WHERE b.finished_at IS NULL AND a.tenant_id = v_tenant_id;
    ELSE
        SELECT
            min(n.name) FILTER (WHERE v.attribute_id IS NULL),
            format(
                'jsonb_strip_nulls(%s)',
                coalesce(string_agg(
                    format(
                        'jsonb_build_object(%L, %s)',
                        n.name,
                        CASE WHEN v.is_hot THEN v.value ELSE format('c%s.value', n.number) END
                    ), ' || '
                ), quote_literal('{}') || '::jsonb')
            ),
            string_agg(format(
                'LEFT JOIN eav.latest_cold(%L, %L, $1, %L::interval) AS c%s ON c%s.entity_id = i.id',
                v_tenant_id, v.attribute_id, p_since, n.number, n.number
            ), ' ') FILTER (WHERE NOT v.is_hot)
        INTO v_unknown, v_attrs, v_joins
        FROM (
            SELECT r.name, min(r.number) AS number FROM unnest(p_return) WITH ORDINALITY AS r (name, number) GROUP BY r.name
        ) AS n
        LEFT JOIN LATERAL eav.attribute_value(v_tenant_id, n.name) AS v ON true;
        IF v_unknown IS NOT NULL OR array_position(p_return, NULL) IS NOT NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('p_return: there is no attribute %s', coalesce(v_unknown, 'NULL'));
        ELSIF cardinality(p_return) > 100 THEN
            RAISE invalid_parameter_value USING MESSAGE = 'p_return: at most 100 attributes';
        END IF;
    END IF;

    -- What is asked most, values that are indexed, and hot values back, is one query instead of two.
    IF v_joins IS NULL AND jsonb_typeof(p_filter) = 'object' AND pg_column_size(p_filter) < 16384 THEN
        SELECT count(*) BETWEEN 1 AND 50 AND count(a.attribute_id) = count(*)
        INTO v_plain
        FROM jsonb_each(p_filter) AS f
        LEFT JOIN LATERAL (
            SELECT h.attribute_id
            FROM eav.attributes AS h
            WHERE h.tenant_id = v_tenant_id AND h.name = f.key AND h.is_hot AND NOT h.is_volatile
                AND jsonb_typeof(f.value) = CASE h.data_type
                    WHEN 'text' THEN 'string' WHEN 'boolean' THEN 'boolean' WHEN 'number' THEN 'number' WHEN 'integer' THEN 'number'
                END
                AND NOT EXISTS (SELECT FROM eav.hot_backfill AS b WHERE b.attribute_id = h.attribute_id AND b.tidied_at IS NULL)
            OFFSET 0 -- one name after the other, by its index
        ) AS a ON true;
    END IF;
    IF v_plain THEN
        SELECT f.* INTO v_matches, v_ids, v_times, v_values
        FROM eav.find_plain(v_tenant_id, p_filter, v_after, p_limit, c_few, v_attrs) AS f;
        IF v_matches IS NULL OR v_matches <= c_few THEN
            RETURN QUERY SELECT u.id, u.at, u.value FROM unnest(v_ids, v_times, v_values) AS u (id, at, value);
            RETURN;
        END IF;
    END IF;
    v_ids := eav.find_ids(v_tenant_id, p_filter, v_after, p_limit, p_since, CASE WHEN v_plain THEN 0 ELSE c_few END);
    RETURN QUERY EXECUTE format(
        'SELECT i.id, e.observed_at, %s FROM unnest($1) AS i (id) '
        || 'LEFT JOIN eav.entity_jsonb AS e ON e.tenant_id = %L::bigint AND e.entity_id = i.id AND e.entity_id = ANY($1) %s ORDER BY i.id',
        v_attrs, v_tenant_id, v_joins
    ) USING v_ids;
END;
$$;

COMMENT ON FUNCTION eav.find_entities(jsonb, bigint, integer, text[], interval) IS
'Entities of the tenant of this transaction that fulfil a filter such as {"status": "online", "cpu.percent": {"gte": 80}}, in order, p_limit of them behind p_after, with their hot values or those of p_return. The language: head of its file.';

REVOKE ALL ON FUNCTION eav.find_entities(jsonb, bigint, integer, text[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.find_entities(jsonb, bigint, integer, text[], interval) TO eav_app, eav_analyst;

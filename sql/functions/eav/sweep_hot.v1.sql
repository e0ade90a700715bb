CREATE OR REPLACE FUNCTION eav.sweep_hot(
    p_tenant_id bigint, p_after bigint, p_rows integer, p_only text DEFAULT NULL,
    OUT o_last bigint, OUT o_changed bigint, OUT o_seen bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
SET jit = off
AS $$
DECLARE
    v_tags text[];
    v_volatile text[];
    v_entities bigint[];
BEGIN
    SELECT
        coalesce(array_agg(a.name) FILTER (WHERE NOT a.is_volatile), '{}'),
        coalesce(array_agg(a.name) FILTER (WHERE a.is_volatile), '{}')
    INTO v_tags, v_volatile
    FROM eav.attributes AS a
    WHERE a.tenant_id = p_tenant_id AND a.is_hot AND (p_only IS NULL OR a.name = p_only);

    SELECT
        max(s.entity_id),
        count(*),
        array_agg(s.entity_id) FILTER (
            WHERE CASE
                WHEN p_only IS NULL
                    THEN s.hot_attrs - v_tags <> '{}' OR s.hot_volatile - v_volatile <> '{}'
                        OR s.hot_times - (v_tags || v_volatile) <> '{}'
                WHEN v_tags = '{}' AND v_volatile = '{}'
                    THEN s.hot_attrs ? p_only OR s.hot_volatile ? p_only OR s.hot_times ? p_only
                WHEN v_tags = '{}' THEN s.hot_attrs ? p_only
                ELSE s.hot_volatile ? p_only
            END
        )
    INTO o_last, o_seen, v_entities
    FROM (
        SELECT e.entity_id, e.hot_attrs, e.hot_volatile, e.hot_times
        FROM eav.entity_jsonb AS e
        WHERE e.tenant_id = p_tenant_id AND e.entity_id > p_after
        ORDER BY e.entity_id
        LIMIT p_rows
    ) AS s;
    o_changed := 0;
    IF v_entities IS NULL THEN
        RETURN;
    END IF;
    -- In key order, as a flush takes them. What is looked at below is what they are once they are ours.
    PERFORM FROM (
        SELECT e.entity_id
        FROM eav.entity_jsonb AS e
        WHERE e.tenant_id = p_tenant_id AND e.entity_id = ANY(v_entities)
        ORDER BY e.entity_id
        FOR NO KEY UPDATE
    ) AS l;
    -- A value in the column where it does not belong (any more) is newer than one that is in the other as well: who
    -- writes to the right one takes it out of the wrong one.
    UPDATE eav.entity_jsonb AS e
    SET
        hot_attrs = kept.hot_attrs || moved.tags,
        hot_volatile = kept.hot_volatile || moved.volatile,
        hot_times = kept.hot_times,
        observed_at = coalesce(
            (SELECT timestamptz 'epoch' + max(t.value::bigint) * interval '1 microsecond' FROM jsonb_each(kept.hot_times) AS t),
            e.observed_at
        )
    FROM
        eav.entity_jsonb AS o
        CROSS JOIN LATERAL (
            SELECT
                CASE
                    WHEN p_only IS NULL THEN ARRAY(SELECT k.key FROM jsonb_object_keys(o.hot_attrs) AS k (key) WHERE k.key <> ALL(v_tags))
                    WHEN v_tags = '{}' THEN ARRAY[p_only]
                    ELSE '{}'::text[]
                END AS no_tags,
                CASE
                    WHEN p_only IS NULL
                        THEN ARRAY(SELECT k.key FROM jsonb_object_keys(o.hot_volatile) AS k (key) WHERE k.key <> ALL(v_volatile))
                    WHEN v_volatile = '{}' THEN ARRAY[p_only]
                    ELSE '{}'::text[]
                END AS no_volatile,
                CASE
                    WHEN p_only IS NULL
                        THEN ARRAY(SELECT k.key FROM jsonb_object_keys(o.hot_times) AS k (key) WHERE k.key <> ALL(v_tags || v_volatile))
                    WHEN v_tags || v_volatile = '{}' THEN ARRAY[p_only]
                    ELSE '{}'::text[]
                END AS not_hot
        ) AS wrong
        CROSS JOIN LATERAL (
            SELECT
                o.hot_attrs - wrong.no_tags AS hot_attrs,
                o.hot_volatile - wrong.no_volatile AS hot_volatile,
                o.hot_times - wrong.not_hot AS hot_times
        ) AS kept
        CROSS JOIN LATERAL (
            SELECT
                (
                    SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}')
                    FROM jsonb_each(o.hot_volatile) AS k WHERE k.key = ANY(wrong.no_volatile) AND k.key = ANY(v_tags)
                ) AS tags,
                (
                    SELECT coalesce(jsonb_object_agg(k.key, k.value), '{}')
                    FROM jsonb_each(o.hot_attrs) AS k WHERE k.key = ANY(wrong.no_tags) AND k.key = ANY(v_volatile)
                ) AS volatile
        ) AS moved
    WHERE o.tenant_id = p_tenant_id AND o.entity_id = ANY(v_entities)
        AND e.tenant_id = o.tenant_id AND e.entity_id = o.entity_id;
    GET DIAGNOSTICS o_changed = ROW_COUNT;
    DELETE FROM eav.entity_jsonb AS e
    WHERE e.tenant_id = p_tenant_id AND e.entity_id = ANY(v_entities) AND e.hot_times = '{}';
END;
$$;

COMMENT ON FUNCTION eav.sweep_hot(bigint, bigint, integer, text) IS
'Looks at p_rows entities behind p_after for values of attributes that are not hot, which it takes out, and values in the wrong column, which it moves; of all attributes or of one. Says which entity was the last (NULL: there was none), how many changed, how many it saw.';

REVOKE ALL ON FUNCTION eav.sweep_hot(bigint, bigint, integer, text) FROM PUBLIC;

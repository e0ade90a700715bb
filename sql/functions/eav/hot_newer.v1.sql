CREATE OR REPLACE FUNCTION eav.hot_newer(
    p_old_attrs jsonb, p_old_times jsonb, p_new_attrs jsonb, p_new_times jsonb
)
RETURNS text[]
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The later event wins; of two events of the same moment the greater value, so that the outcome does not depend on
    -- the order of arrival. A value that is there already is not newer: nothing is written for it.
    SELECT array_agg(n.key)
    FROM jsonb_each(p_new_times) AS n
    WHERE NOT p_old_times ? n.key
        OR n.value > p_old_times -> n.key
        OR (n.value = p_old_times -> n.key AND p_new_attrs -> n.key > p_old_attrs -> n.key);
$$;

COMMENT ON FUNCTION eav.hot_newer(jsonb, jsonb, jsonb, jsonb) IS
'The attributes whose new value replaces the one an entity has, NULL if none. Times are microseconds since 1970.';

REVOKE ALL ON FUNCTION eav.hot_newer(jsonb, jsonb, jsonb, jsonb) FROM PUBLIC;

-- lint: ignore-file search-path: a SQL-standard body is bound to its objects when created
-- A SET clause would cost three times what the function does.
-- Parameters have no table:
-- noqa: disable=references.consistent
--
-- The later event wins; of two events of the same moment the greater value, so that the outcome does not depend on the
-- order of arrival. A value that is there already is not newer: nothing is written for it.
CREATE OR REPLACE FUNCTION eav.hot_newer(
    p_old_attrs jsonb, p_old_volatile jsonb, p_old_times jsonb,
    p_new_attrs jsonb, p_new_volatile jsonb, p_new_times jsonb
)
RETURNS text[]
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN (
    SELECT array_agg(n.key)
    FROM jsonb_each(p_new_times) AS n
    WHERE
        NOT p_old_times ? n.key
        OR n.value > p_old_times -> n.key
        OR (
            n.value = p_old_times -> n.key
            AND coalesce(
                coalesce(p_new_attrs -> n.key, p_new_volatile -> n.key)
                > coalesce(p_old_attrs -> n.key, p_old_volatile -> n.key),
                true
            )
        )
);

COMMENT ON FUNCTION eav.hot_newer(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb) IS
'The attributes whose new value replaces the one an entity has, NULL if none. Times are microseconds since 1970.';

REVOKE ALL ON FUNCTION eav.hot_newer(jsonb, jsonb, jsonb, jsonb, jsonb, jsonb) FROM PUBLIC;

-- lint: ignore-file search-path: only functions that pin theirs may call it, and it is inlined into their queries
CREATE OR REPLACE FUNCTION eav.attribute_value(p_tenant_id bigint, p_name text)
RETURNS TABLE (attribute_id bigint, data_type text, is_hot boolean, value text, indexed text)
LANGUAGE sql
STABLE
AS $$
    SELECT
        a.attribute_id,
        a.data_type,
        a.is_hot,
        CASE
            WHEN b.attribute_id IS NULL
                THEN format('(e.%I -> %L)', CASE WHEN a.is_volatile THEN 'hot_volatile' ELSE 'hot_attrs' END, a.name)
            -- It moves from one column to the other, and where it is in both it is newer where it comes from.
            WHEN a.is_volatile THEN format('coalesce(e.hot_attrs -> %1$L, e.hot_volatile -> %1$L)', a.name)
            ELSE format('coalesce(e.hot_volatile -> %1$L, e.hot_attrs -> %1$L)', a.name)
        END,
        CASE WHEN b.attribute_id IS NULL AND NOT a.is_volatile THEN 'e.hot_attrs' END
    FROM eav.attributes AS a
    LEFT JOIN eav.hot_backfill AS b ON a.attribute_id = b.attribute_id AND b.tidied_at IS NULL
    WHERE a.tenant_id = p_tenant_id AND a.name = p_name;
$$;

COMMENT ON FUNCTION eav.attribute_value(bigint, text) IS
'How to read an attribute of a row e of entity_jsonb, as SQL: the expression of its value, and the column whose index serves containment.';

REVOKE ALL ON FUNCTION eav.attribute_value(bigint, text) FROM PUBLIC;

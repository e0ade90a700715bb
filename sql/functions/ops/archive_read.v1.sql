CREATE OR REPLACE FUNCTION ops.archive_read(p_columns jsonb)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(
        CASE c.kind
            WHEN 'number' THEN format('coalesce(s.%2$I::numeric, s.%1$I::numeric)::%3$s AS %1$I', c.name, c.name || '__exact', c.type)
            WHEN 'time' THEN format('coalesce(s.%2$I::%3$s, s.%1$I) AS %1$I', c.name, c.name || '__exact', c.type)
            ELSE format('s.%1$I::%2$s AS %1$I', c.name, c.type)
        END, ', ' ORDER BY c.place
    )
    FROM jsonb_array_elements(p_columns) WITH ORDINALITY AS e (col, place)
    CROSS JOIN LATERAL (
        SELECT e.col ->> 'name' AS name, e.col ->> 'kind' AS kind, e.col ->> 'type' AS type, e.place
    ) AS c;
$$;

COMMENT ON FUNCTION ops.archive_read(jsonb) IS
'The select list that makes these columns (ops.archive_columns) again from what their archive holds, s. Undoes ops.archive_written.';

REVOKE ALL ON FUNCTION ops.archive_read(jsonb) FROM PUBLIC;

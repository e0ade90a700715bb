CREATE OR REPLACE FUNCTION ops.archive_sum(p_one jsonb, p_other jsonb)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_one IS NULL THEN p_other
        ELSE jsonb_build_object(
            'rows', (p_one ->> 'rows')::bigint + (p_other ->> 'rows')::bigint,
            'sum', (p_one ->> 'sum')::numeric + (p_other ->> 'sum')::numeric,
            'columns', (
                SELECT jsonb_object_agg(
                    c.name,
                    jsonb_build_array(
                        (c.pair ->> 0)::bigint + (p_other -> 'columns' -> c.name ->> 0)::bigint,
                        (c.pair ->> 1)::numeric + (p_other -> 'columns' -> c.name ->> 1)::numeric
                    )
                )
                FROM jsonb_each(p_one -> 'columns') AS c (name, pair)
            )
        )
    END;
$$;

COMMENT ON FUNCTION ops.archive_sum(jsonb, jsonb) IS
'The checks (ops.archive_checks) of the rows of both; p_one may be NULL: of no rows.';

REVOKE ALL ON FUNCTION ops.archive_sum(jsonb, jsonb) FROM PUBLIC;

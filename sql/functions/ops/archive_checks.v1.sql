CREATE OR REPLACE FUNCTION ops.archive_checks(p_columns jsonb, p_from text)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
-- Values that are hashed as text must read the same whoever asks.
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
SET extra_float_digits = 1
SET bytea_output = 'hex'
AS $$
DECLARE
    v_query text;
    v_rows bigint;
    v_sum numeric;
    v_set bigint [];
    v_sums numeric [];
BEGIN
    -- A hash a value, by which a column is summed, and a hash of those a row, which notices a value that changed rows.
    -- That one is hashed once more: hash_record_extended is 31 times what it has plus the next column, so that a sum of it
    -- is made of the sums of the columns, and rows that swapped a value may sum up the same.
    -- numeric is hashed as text: 1.0 and 1.00 hash the same, as NaN and the infinities do; so are -0.0 and 0.0.
    SELECT format(
        'SELECT count(*), coalesce(sum(hashint8extended(hash_record_extended(ROW(%s), 0), 0)), 0), ARRAY[%s]::bigint[], ARRAY[%s]::numeric[]'
        || ' FROM (SELECT %s FROM %s AS r OFFSET 0) AS h',
        string_agg(format('h.h%s', c.place), ', ' ORDER BY c.place),
        string_agg(format('count(h.h%s)', c.place), ', ' ORDER BY c.place),
        string_agg(format('coalesce(sum(h.h%s), 0)', c.place), ', ' ORDER BY c.place),
        string_agg(
            format(
                CASE c.type
                    WHEN 'bigint' THEN 'hashint8extended(r.%1$I, 0)'
                    WHEN 'integer' THEN 'hashint4extended(r.%1$I, 0)'
                    WHEN 'smallint' THEN 'hashint2extended(r.%1$I, 0)'
                    WHEN 'boolean' THEN 'hashint4extended(r.%1$I::integer, 0)'
                    WHEN 'timestamp with time zone' THEN $f$timestamp_hash_extended(timezone('UTC', r.%1$I), 0)$f$
                    WHEN 'bytea' THEN 'CASE WHEN r.%1$I IS NOT NULL THEN hash_record_extended(ROW(r.%1$I), 0) END'
                    ELSE 'hashtextextended(r.%1$I::text COLLATE "C", 0)'
                END || ' AS h%2$s',
                c.name, c.place
            ), ', ' ORDER BY c.place
        ),
        p_from
    ) INTO v_query
    FROM jsonb_array_elements(p_columns) WITH ORDINALITY AS e (col, place)
    CROSS JOIN LATERAL (SELECT e.col ->> 'name' AS name, e.col ->> 'type' AS type, e.place) AS c;
    -- lint: ignore dynamic-sql: the columns are quoted one by one, p_from is made by the functions of the archive
    EXECUTE v_query INTO v_rows, v_sum, v_set, v_sums;
    RETURN jsonb_build_object(
        'rows', v_rows,
        'sum', v_sum,
        'columns', (
            SELECT jsonb_object_agg(e.col ->> 'name', jsonb_build_array(v_set[e.place], v_sums[e.place]))
            FROM jsonb_array_elements(p_columns) WITH ORDINALITY AS e (col, place)
        )
    );
END;
$$;

COMMENT ON FUNCTION ops.archive_checks(jsonb, text) IS
'What two sets of rows with these columns (ops.archive_columns) are compared by: {"rows", "sum": of a hash a row, "columns": {name: [values that are not null, sum of a hash a value]}}. Each sum of a whole is that of its parts. p_from is SQL: for the owner only.';

REVOKE ALL ON FUNCTION ops.archive_checks(jsonb, text) FROM PUBLIC;

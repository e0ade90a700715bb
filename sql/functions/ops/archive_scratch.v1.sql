-- lint: ignore-file plpgsql-check-performance: it makes a table, by dynamic SQL
CREATE OR REPLACE FUNCTION ops.archive_scratch(p_archive_id bigint)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text;
BEGIN
    SELECT string_agg(
        CASE
            WHEN c.kind = 'number' THEN format('%I double precision, %I text', c.name, c.name || '__exact')
            WHEN c.kind = 'time' THEN format('%I %s, %I text', c.name, c.type, c.name || '__exact')
            WHEN c.kind = 'plain' THEN format('%I %s', c.name, c.type)
            ELSE format('%I text', c.name)
        END, ', ' ORDER BY c.place
    ) INTO STRICT v_columns
    FROM ops.partition_archives AS a
    CROSS JOIN LATERAL jsonb_array_elements(a.columns) WITH ORDINALITY AS e (col, place)
    CROSS JOIN LATERAL (
        SELECT e.col ->> 'name' AS name, e.col ->> 'kind' AS kind, e.col ->> 'type' AS type, e.place
    ) AS c
    WHERE a.archive_id = p_archive_id;
    UPDATE ops.partition_archives SET read_back = NULL WHERE archive_id = p_archive_id AND status = 'exporting';
    -- The owner's: rows are put into it by COPY, which calls nothing, and read by the functions of the archive only.
    DROP TABLE IF EXISTS pg_temp.archive_scratch;
    -- lint: ignore dynamic-sql: the columns are quoted one by one, the types are the catalogue's
    EXECUTE format('CREATE TEMPORARY TABLE archive_scratch (%s)', v_columns);
    GRANT INSERT ON pg_temp.archive_scratch TO eav_jobs;
    RETURN 'archive_scratch';
END;
$$;

COMMENT ON FUNCTION ops.archive_scratch(bigint) IS
'Makes the temporary table that the files of an archive are loaded into, a piece at a time, by ops.archive_piece or ops.restore_piece.';

REVOKE ALL ON FUNCTION ops.archive_scratch(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_scratch(bigint) TO eav_jobs;

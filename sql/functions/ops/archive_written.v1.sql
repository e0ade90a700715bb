CREATE OR REPLACE FUNCTION ops.archive_written(p_columns jsonb)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(
        CASE c.kind
            WHEN 'plain' THEN format('t.%1$I AS %1$I', c.name)
            -- The nearest double, which a cast refuses to give beyond the range of a double.
            WHEN 'number' THEN format(
                $f$CASE
                    WHEN t.%1$I = 'NaN' THEN 'NaN'
                    WHEN t.%1$I > 1.7e308 THEN 'Infinity'
                    WHEN t.%1$I < -1.7e308 THEN '-Infinity'
                    WHEN abs(t.%1$I) < 1e-307 THEN 0
                    ELSE t.%1$I::double precision
                END::double precision AS %1$I,
                CASE
                    WHEN scale(t.%1$I) <= 6 AND scale(t.%1$I) = min_scale(t.%1$I) AND abs(t.%1$I) < 1e9 THEN NULL
                    WHEN t.%1$I IN ('NaN', 'Infinity', '-Infinity') THEN NULL
                    WHEN abs(t.%1$I) <= 1.7e308 AND abs(t.%1$I) >= 1e-307
                        AND t.%1$I::double precision::numeric::text = t.%1$I::text THEN NULL
                    ELSE t.%1$I::text
                END AS %2$I$f$,
                c.name, c.name || '__exact'
            )
            -- Infinities, and years that other programs have no name for.
            WHEN 'time' THEN format(
                $f$CASE WHEN t.%1$I >= '0001-01-01' AND t.%1$I < '9999-12-31' THEN t.%1$I END AS %1$I,
                CASE WHEN t.%1$I < '0001-01-01' OR t.%1$I >= '9999-12-31' THEN t.%1$I::text END AS %2$I$f$,
                c.name, c.name || '__exact'
            )
            ELSE format('t.%1$I::text AS %1$I', c.name)
        END, ', ' ORDER BY c.place
    )
    FROM jsonb_array_elements(p_columns) WITH ORDINALITY AS e (col, place)
    CROSS JOIN LATERAL (SELECT e.col ->> 'name' AS name, e.col ->> 'kind' AS kind, e.place) AS c;
$$;

COMMENT ON FUNCTION ops.archive_written(jsonb) IS
'The select list, over a partition t, of what an archive of these columns (ops.archive_columns) holds.';

REVOKE ALL ON FUNCTION ops.archive_written(jsonb) FROM PUBLIC;

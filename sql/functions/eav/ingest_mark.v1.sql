CREATE OR REPLACE FUNCTION eav.ingest_mark(
    p_source_id bigint, p_position bigint, p_mark text, p_covered_until timestamptz, p_ended boolean DEFAULT false
)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO eav.ingest_source_marks AS m (source_id, position, mark, covered_until, ended)
    VALUES (p_source_id, p_position, p_mark, p_covered_until, p_ended)
    ON CONFLICT (source_id, position) DO UPDATE
    SET mark = excluded.mark, covered_until = excluded.covered_until, ended = excluded.ended;
$$;

COMMENT ON FUNCTION eav.ingest_mark(bigint, bigint, text, timestamptz, boolean) IS
'Says what a source calls a position of its own. Call it in the transaction that stages the rows up to there.';

REVOKE ALL ON FUNCTION eav.ingest_mark(bigint, bigint, text, timestamptz, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_mark(bigint, bigint, text, timestamptz, boolean) TO eav_ingest;

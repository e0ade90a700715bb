CREATE OR REPLACE FUNCTION eav.ingest_marks(p_source text, p_partition text DEFAULT NULL)
RETURNS TABLE (partition text, staged_through bigint, mark text, covered_until timestamptz, ended boolean)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source eav.ingest_sources;
BEGIN
    FOR v_source IN
        SELECT s.* FROM eav.ingest_sources AS s
        WHERE s.source = p_source AND (p_partition IS NULL OR s.partition = p_partition)
        ORDER BY s.partition
    LOOP
        -- Positions first, which refuses an older snapshot: a mark is only worth what is staged or durable up to it.
        partition := v_source.partition;
        staged_through := eav.ingest_position(v_source.source, v_source.partition);
        SELECT m.mark, m.covered_until, m.ended INTO mark, covered_until, ended
        FROM eav.ingest_source_marks AS m
        WHERE m.source_id = v_source.source_id AND m.position = staged_through;
        RETURN NEXT;
    END LOOP;
END;
$$;

COMMENT ON FUNCTION eav.ingest_marks(text, text) IS
'Of each partition of a source (or of one) the position that a producer goes on behind, after any crash, and what the source itself calls it; NULL if it was never marked.';

REVOKE ALL ON FUNCTION eav.ingest_marks(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_marks(text, text) TO eav_ingest;

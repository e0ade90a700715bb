CREATE OR REPLACE FUNCTION eav.ingest_gap(p_source_id bigint, p_position bigint, p_from text, p_to text, p_why text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- Noticed again before anything came behind it, it is the same gap, grown.
    INSERT INTO eav.ingest_gaps AS g (source_id, position, gap_from, gap_to, why)
    VALUES (p_source_id, p_position, p_from, p_to, p_why)
    ON CONFLICT (source_id, position) DO UPDATE
    SET noticed_at = excluded.noticed_at, gap_to = excluded.gap_to, why = excluded.why;
$$;

COMMENT ON FUNCTION eav.ingest_gap(bigint, bigint, text, text, text) IS
'Records that something of a source is missing behind a position, which a person has accepted.';

REVOKE ALL ON FUNCTION eav.ingest_gap(bigint, bigint, text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_gap(bigint, bigint, text, text, text) TO eav_ingest;

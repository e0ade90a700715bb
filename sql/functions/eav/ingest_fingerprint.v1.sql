CREATE OR REPLACE FUNCTION eav.ingest_fingerprint(p_source text, p_partition text DEFAULT '0')
RETURNS text
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.fingerprint FROM eav.ingest_sources AS s WHERE s.source = p_source AND s.partition = p_partition;
$$;

COMMENT ON FUNCTION eav.ingest_fingerprint(text, text) IS 'What the content of a source began with when it was first ingested, NULL if unknown.';

REVOKE ALL ON FUNCTION eav.ingest_fingerprint(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_fingerprint(text, text) TO eav_ingest;

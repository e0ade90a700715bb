CREATE OR REPLACE FUNCTION eav.ingest_source(
    p_source text,
    p_partition text DEFAULT '0',
    p_durable boolean DEFAULT false,
    p_fingerprint text DEFAULT NULL
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source eav.ingest_sources;
BEGIN
    SELECT s.* INTO v_source FROM eav.ingest_sources AS s WHERE s.source = p_source AND s.partition = p_partition;
    IF NOT found THEN
        INSERT INTO eav.ingest_sources AS s (source, partition, lane, fingerprint)
        SELECT
            p_source,
            p_partition,
            -- A source stays in one lane, so that what it staged first is flushed first.
            CASE WHEN p_durable THEN 0 ELSE 1 + (count(*) % 4) END,
            p_fingerprint
        FROM eav.ingest_sources
        ON CONFLICT (source, partition) DO UPDATE SET fingerprint = coalesce(s.fingerprint, excluded.fingerprint)
        RETURNING s.* INTO v_source;
    END IF;
    IF p_durable AND v_source.lane <> 0 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s (partition %s) is known as a source that can be replayed', p_source, p_partition),
            HINT = 'Take another name for what must be kept as soon as it is acknowledged.';
    END IF;
    IF v_source.fingerprint IS NULL AND p_fingerprint IS NOT NULL THEN
        -- Of two who come at once, the first one's stays, and the other one is compared with it.
        UPDATE eav.ingest_sources SET fingerprint = p_fingerprint
        WHERE source_id = v_source.source_id AND fingerprint IS NULL;
        SELECT s.fingerprint INTO v_source.fingerprint
        FROM eav.ingest_sources AS s WHERE s.source_id = v_source.source_id;
    END IF;
    IF v_source.fingerprint <> p_fingerprint THEN
        RAISE SQLSTATE 'EAV01' USING
            MESSAGE = format('%s (partition %s) was ingested before with other content', p_source, p_partition);
    END IF;
    RETURN v_source.source_id;
END;
$$;

COMMENT ON FUNCTION eav.ingest_source(text, text, boolean, text) IS
'Finds or registers a source and returns its id. Durable: its rows are staged in the logged lane. A fingerprint that differs from the known one is refused (EAV01).';

REVOKE ALL ON FUNCTION eav.ingest_source(text, text, boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_source(text, text, boolean, text) TO eav_ingest;

CREATE OR REPLACE FUNCTION eav.ingest_target(p_source_id bigint DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lane integer := 0;
BEGIN
    IF p_source_id IS NOT NULL THEN
        SELECT s.lane INTO v_lane FROM eav.ingest_sources AS s WHERE s.source_id = p_source_id;
        IF NOT found THEN
            RAISE no_data_found USING
                MESSAGE = format('no source has the id %s', p_source_id), HINT = 'Register it with eav.ingest_source(name, partition).';
        END IF;
    END IF;
    RETURN eav.staging_slot(v_lane);
END;
$$;

COMMENT ON FUNCTION eav.ingest_target(bigint) IS
'Where to COPY the next batch: the current slot of the lane of this source, or of the durable lane without one. Slots rotate: ask for every batch.';

REVOKE ALL ON FUNCTION eav.ingest_target(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_target(bigint) TO eav_ingest;

CREATE OR REPLACE FUNCTION eav.ingest_position(p_source text, p_partition text DEFAULT '0')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source eav.ingest_sources;
    v_position bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'eav.ingest_position needs READ COMMITTED: an older snapshot can miss rows that a flush has just moved';
    END IF;
    SELECT s.* INTO v_source FROM eav.ingest_sources AS s WHERE s.source = p_source AND s.partition = p_partition;
    IF NOT found THEN
        RETURN 0;
    END IF;
    -- TRUNCATE shows at once, even to a snapshot from before it: without this lock a flush between the two reads below
    -- would hide rows that are in neither, and the producer would send them twice.
    PERFORM eav.lock_lane(v_source.lane);
    EXECUTE format(
        $sql$
        SELECT greatest(
            (SELECT max(c.position) FROM eav.ingest_checkpoint_log AS c WHERE c.source_id = $1),
            (SELECT max(s.source_offset) FROM %s AS s WHERE s.source_id = $1),
            (SELECT max(s.source_offset) FROM %s AS s WHERE s.source_id = $1),
            (SELECT max(s.source_offset) FROM %s AS s WHERE s.source_id = $1),
            0
        )
        $sql$,
        eav.staging_slot(v_source.lane, 0)::regclass,
        eav.staging_slot(v_source.lane, 1)::regclass,
        eav.staging_slot(v_source.lane, 2)::regclass
    ) INTO v_position USING v_source.source_id;
    RETURN v_position;
END;
$$;

COMMENT ON FUNCTION eav.ingest_position(text, text) IS
'The last offset of a source that is durable or still staged, 0 if none: a producer goes on behind it, after any crash.';

REVOKE ALL ON FUNCTION eav.ingest_position(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_position(text, text) TO eav_ingest, eav_jobs;

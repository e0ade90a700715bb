CREATE OR REPLACE FUNCTION eav.staging_slot(p_lane integer, p_ahead integer DEFAULT 0)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- The turn is a sequence because it must not leave dead rows: it is read for every batch, beside any old snapshot.
    SELECT format(
        'eav.staging_%s_%s',
        p_lane,
        (coalesce(pg_sequence_last_value(format('eav.staging_turn_%s', p_lane)::regclass), 0) + p_ahead) % 3
    );
$$;

COMMENT ON FUNCTION eav.staging_slot(integer, integer) IS
'The slot that producers of a lane write to (p_ahead = 0), the one after it (1), the one before it (2).';

REVOKE ALL ON FUNCTION eav.staging_slot(integer, integer) FROM PUBLIC;

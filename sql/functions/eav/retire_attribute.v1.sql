CREATE OR REPLACE FUNCTION eav.retire_attribute(p_attribute_id bigint)
RETURNS timestamptz
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_retired_at timestamptz;
BEGIN
    UPDATE eav.attributes
    SET retired_at = coalesce(retired_at, now())
    WHERE attribute_id = p_attribute_id
    RETURNING retired_at INTO v_retired_at;
    IF NOT found THEN
        RAISE no_data_found USING MESSAGE = format('no attribute has the id %s', p_attribute_id);
    END IF;
    RETURN v_retired_at;
END;
$$;

COMMENT ON FUNCTION eav.retire_attribute(bigint) IS
'Closes an attribute: its values stay readable, new ones are rejected with the reason retired_attribute. Safe to repeat.';

REVOKE ALL ON FUNCTION eav.retire_attribute(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.retire_attribute(bigint) TO eav_app;

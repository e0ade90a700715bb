CREATE OR REPLACE FUNCTION eav.try_timestamptz(p_text text)
RETURNS timestamptz
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
BEGIN
    -- 'now', 'tomorrow' and 'infinity' are times to PostgreSQL, not to a producer
    IF length(p_text) <= 64 THEN
        IF p_text ~ '^\d{4}-\d\d-\d\d[T ]' THEN
            RETURN p_text::timestamptz;
        END IF;
    END IF;
    RETURN NULL;
EXCEPTION
    WHEN data_exception THEN
        RETURN NULL;
END;
$$;

COMMENT ON FUNCTION eav.try_timestamptz(text) IS 'An ISO 8601 time, NULL if the text is none.';

REVOKE ALL ON FUNCTION eav.try_timestamptz(text) FROM PUBLIC;

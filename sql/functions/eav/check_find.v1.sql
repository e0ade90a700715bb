CREATE OR REPLACE FUNCTION eav.check_find(p_limit integer, p_since interval)
RETURNS void
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_limit must be 1 to 10000, got %s', coalesce(p_limit::text, 'NULL'));
    END IF;
    IF p_since IS NULL OR p_since <= interval '0' OR p_since > interval '30 days' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_since must be more than nothing and up to 30 days, got %s', coalesce(p_since::text, 'NULL'));
    END IF;
END;
$$;

COMMENT ON FUNCTION eav.check_find(integer, interval) IS 'Refuses a page or a window that eav.find_entities does not serve.';

REVOKE ALL ON FUNCTION eav.check_find(integer, interval) FROM PUBLIC;

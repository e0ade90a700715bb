CREATE OR REPLACE FUNCTION eav.is_ipv6(p_text text)
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_text ~ '^[0-9A-Fa-f:.]{2,45}$' THEN
        RETURN family(p_text::inet) = 6;
    END IF;
    RETURN CASE WHEN p_text IS NOT NULL THEN false END;
EXCEPTION
    WHEN data_exception THEN
        RETURN false;
END;
$$;

COMMENT ON FUNCTION eav.is_ipv6(text) IS 'Whether a text is an IPv6 address, without a zone or a prefix length.';

REVOKE ALL ON FUNCTION eav.is_ipv6(text) FROM PUBLIC;

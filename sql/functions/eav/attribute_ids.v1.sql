CREATE OR REPLACE FUNCTION eav.attribute_ids(p_tenant_id bigint, p_names text[])
RETURNS TABLE (name text, attribute_id bigint, data_type text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.name, a.attribute_id, a.data_type
    FROM eav.attributes AS a
    WHERE a.tenant_id = p_tenant_id AND a.name = ANY(p_names);
$$;

COMMENT ON FUNCTION eav.attribute_ids(bigint, text[]) IS
'What an ingester needs to stage values by id: only the names it already has are answered, of the tenant it names.';

REVOKE ALL ON FUNCTION eav.attribute_ids(bigint, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.attribute_ids(bigint, text[]) TO eav_ingest;

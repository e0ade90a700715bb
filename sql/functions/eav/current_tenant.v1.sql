CREATE OR REPLACE FUNCTION eav.current_tenant()
RETURNS bigint
LANGUAGE sql
STABLE
PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(current_setting('app.tenant_id', true), '')::bigint;
$$;

COMMENT ON FUNCTION eav.current_tenant() IS
'The tenant this transaction works for (SET LOCAL app.tenant_id), NULL when unset: then no policy lets a row through.';

REVOKE ALL ON FUNCTION eav.current_tenant() FROM PUBLIC;

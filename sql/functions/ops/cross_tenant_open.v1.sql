CREATE OR REPLACE FUNCTION ops.cross_tenant_open()
RETURNS boolean
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- A record of this very transaction does not count: rolled back, it would have left no trace of what was read.
    SELECT EXISTS (
        SELECT
        FROM ops.cross_tenant_access AS c
        WHERE c.backend_pid = pg_backend_pid()
            AND c.session_key = sha256(convert_to(current_setting('ops.cross_tenant_key', true), 'UTF8'))
            AND c.expires_at > clock_timestamp()
            AND c.opened_in IS DISTINCT FROM pg_current_xact_id_if_assigned()
    );
$$;

COMMENT ON FUNCTION ops.cross_tenant_open() IS
'Whether this session has opened cross-tenant access, in an earlier transaction that was committed, and it has not expired.';

REVOKE ALL ON FUNCTION ops.cross_tenant_open() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.cross_tenant_open() TO eav_superadmin;

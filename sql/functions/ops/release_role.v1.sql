CREATE OR REPLACE FUNCTION ops.release_role(p_role text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = p_role) THEN
        RETURN;
    END IF;
    EXECUTE format('DROP OWNED BY %I', p_role);
    -- Another database of the cluster may still use it: then it stays.
    IF NOT EXISTS (
        SELECT
        FROM pg_shdepend AS d
        WHERE d.refclassid = 'pg_authid'::regclass
            AND d.refobjid = (SELECT r.oid FROM pg_roles AS r WHERE r.rolname = p_role)
    ) THEN
        EXECUTE format('DROP ROLE %I', p_role);
    END IF;
END;
$$;

COMMENT ON FUNCTION ops.release_role(text) IS
'Undoes ops.ensure_role: drops what the role owns here and, when no other database needs it, the role.';

REVOKE ALL ON FUNCTION ops.release_role(text) FROM PUBLIC;

-- Roles belong to the whole cluster, so another database may have made them already, and CREATE ROLE has no
-- IF NOT EXISTS.
CREATE OR REPLACE FUNCTION ops.ensure_role(p_role text, p_login boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = p_role) THEN
        EXECUTE format('CREATE ROLE %I', p_role);
    END IF;
    EXECUTE format('ALTER ROLE %I %s', p_role, CASE WHEN p_login THEN 'LOGIN' ELSE 'NOLOGIN' END);
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this cluster was migrated at the same moment
END;
$$;

COMMENT ON FUNCTION ops.ensure_role(text, boolean) IS
'Makes a role of the platform unless the cluster has it. No password is set: give one, or IAM, outside migrations.';

REVOKE ALL ON FUNCTION ops.ensure_role(text, boolean) FROM PUBLIC;

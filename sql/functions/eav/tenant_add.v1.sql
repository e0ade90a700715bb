CREATE OR REPLACE FUNCTION eav.tenant_add(
    p_name text, p_tenant_id bigint DEFAULT NULL, p_auto_register boolean DEFAULT false
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_found eav.tenants;
BEGIN
    SELECT t.* INTO v_found FROM eav.tenants AS t WHERE t.name = p_name;
    IF found THEN
        IF p_tenant_id IS NOT NULL AND p_tenant_id <> v_found.tenant_id THEN
            RAISE unique_violation USING MESSAGE = format('tenant %s exists already, with id %s', p_name, v_found.tenant_id);
        END IF;
        IF p_auto_register AND NOT v_found.auto_register THEN
            UPDATE eav.tenants SET auto_register = true WHERE tenant_id = v_found.tenant_id;
        END IF;
        RETURN v_found.tenant_id;
    END IF;
    IF EXISTS (SELECT FROM eav.tenants AS t WHERE t.tenant_id = p_tenant_id) THEN
        RAISE unique_violation USING MESSAGE = format('tenant id %s is taken', p_tenant_id);
    END IF;
    IF p_tenant_id IS NULL THEN
        -- Ids given by hand do not move the sequence: step over those that are taken.
        LOOP
            p_tenant_id := nextval(pg_get_serial_sequence('eav.tenants', 'tenant_id'));
            EXIT WHEN NOT EXISTS (SELECT FROM eav.tenants AS t WHERE t.tenant_id = p_tenant_id);
        END LOOP;
    END IF;
    INSERT INTO eav.tenants (tenant_id, name, auto_register) VALUES (p_tenant_id, p_name, p_auto_register);
    RETURN p_tenant_id;
END;
$$;

COMMENT ON FUNCTION eav.tenant_add(text, bigint, boolean) IS
'Adds a tenant and returns its id; the id of the tenant of that name when there is one. Never switches auto_register off.';

REVOKE ALL ON FUNCTION eav.tenant_add(text, bigint, boolean) FROM PUBLIC;

CREATE OR REPLACE FUNCTION ops.open_cross_tenant(p_reason text, p_for interval DEFAULT interval '15 minutes')
RETURNS timestamptz
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_expires_at timestamptz;
    v_key CONSTANT text := gen_random_uuid()::text;
BEGIN
    IF p_reason IS NULL OR length(trim(p_reason)) < 10 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'say why you need to see every tenant, in ten characters or more (a ticket, an incident)';
    END IF;
    IF p_for IS NULL OR p_for <= interval '0' OR p_for > interval '8 hours' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('access lasts up to 8 hours, got %s', coalesce(p_for::text, 'NULL'));
    END IF;
    -- A commit that is only promised could be lost with the record after rows were read.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- What tells this session from a later one with its pid. Not when the backend started: pg_stat_activity hides that of
    -- other roles, and this runs as the owner. The table has only the digest, so whoever reads it cannot take the key on.
    PERFORM set_config('ops.cross_tenant_key', v_key, false);
    INSERT INTO ops.cross_tenant_access (expires_at, opened_in, backend_pid, login, application, client, reason, session_key)
    VALUES (
        clock_timestamp() + p_for,
        pg_current_xact_id(),
        pg_backend_pid(),
        session_user,
        current_setting('application_name'),
        inet_client_addr(),
        p_reason,
        sha256(convert_to(v_key, 'UTF8'))
    )
    RETURNING expires_at INTO v_expires_at;
    RETURN v_expires_at;
END;
$$;

COMMENT ON FUNCTION ops.open_cross_tenant(text, interval) IS
'Writes down who wants to see every tenant, why and how long. It opens for this session from the next transaction on, so that the record is durable before the first row is read.';

REVOKE ALL ON FUNCTION ops.open_cross_tenant(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.open_cross_tenant(text, interval) TO eav_superadmin;

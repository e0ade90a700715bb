CREATE OR REPLACE FUNCTION ops.open_cross_tenant(p_reason text, p_for interval DEFAULT interval '15 minutes')
RETURNS timestamptz
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_expires_at timestamptz;
BEGIN
    IF p_reason IS NULL OR length(trim(p_reason)) < 10 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'say why you need to see every tenant, in ten characters or more (a ticket, an incident)';
    END IF;
    IF p_for IS NULL OR p_for <= interval '0' OR p_for > interval '8 hours' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('access lasts up to 8 hours, got %s', coalesce(p_for::text, 'NULL'));
    END IF;
    INSERT INTO ops.cross_tenant_access (expires_at, backend_start, opened_in, backend_pid, login, application, client, reason)
    SELECT clock_timestamp() + p_for, a.backend_start, pg_current_xact_id(), a.pid, session_user, a.application_name, a.client_addr, p_reason
    FROM pg_stat_activity AS a
    WHERE a.pid = pg_backend_pid()
    RETURNING expires_at INTO v_expires_at;
    RETURN v_expires_at;
END;
$$;

COMMENT ON FUNCTION ops.open_cross_tenant(text, interval) IS
'Writes down who wants to see every tenant, why and how long. It opens for this session from the next transaction on, so that the record is durable before the first row is read.';

REVOKE ALL ON FUNCTION ops.open_cross_tenant(text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.open_cross_tenant(text, interval) TO eav_superadmin;

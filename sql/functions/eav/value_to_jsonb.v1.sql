-- lint: ignore-file search-path: a SQL-standard body is bound to its objects when created, and can be inlined
CREATE OR REPLACE FUNCTION eav.value_to_jsonb(
    p_number numeric, p_text text, p_bool boolean, p_time timestamptz
)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN p_number IS NOT NULL THEN to_jsonb(p_number)
    WHEN p_text IS NOT NULL THEN to_jsonb(p_text)
    WHEN p_bool IS NOT NULL THEN to_jsonb(p_bool)
    ELSE to_jsonb(to_char(p_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
END;

COMMENT ON FUNCTION eav.value_to_jsonb(numeric, text, boolean, timestamptz) IS
'The one value that is set, as JSON; times as RFC 3339 in UTC.';

REVOKE ALL ON FUNCTION eav.value_to_jsonb(numeric, text, boolean, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.value_to_jsonb(numeric, text, boolean, timestamptz)
TO eav_app, eav_analyst, eav_jobs, eav_superadmin;

-- pg_partman 4 and 5 differ in names of types and in the default partition; which one is installed, the
-- server knows, not the revision, whose SQL may be written offline.
CREATE OR REPLACE FUNCTION ops.partman_create_call(
    p_version text, p_parent text, p_control text, p_interval interval, p_premake integer, p_start timestamptz
)
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        'SELECT partman.create_parent(p_parent_table := %L, p_control := %L, p_type := %L, p_interval := %L, '
        || 'p_premake := %L, p_start_partition := %L, p_jobmon := false%s)',
        p_parent,
        p_control,
        CASE WHEN split_part(p_version, '.', 1)::integer >= 5 THEN 'range' ELSE 'native' END,
        p_interval::text,
        p_premake,
        to_char(p_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || '+00',
        CASE WHEN split_part(p_version, '.', 1)::integer >= 5 THEN ', p_default_table := false' ELSE '' END
    );
$$;

COMMENT ON FUNCTION ops.partman_create_call(text, text, text, interval, integer, timestamptz) IS
'The call that hands a table to pg_partman of this version (4.7 or 5.x), as SQL text.';

REVOKE ALL ON FUNCTION ops.partman_create_call(text, text, text, interval, integer, timestamptz) FROM PUBLIC;

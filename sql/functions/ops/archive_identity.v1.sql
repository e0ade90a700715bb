CREATE OR REPLACE FUNCTION ops.archive_identity()
RETURNS bigint[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY[s.system_identifier, d.oid::bigint, 'ops.partition_archives'::regclass::oid::bigint]
    FROM pg_control_system() AS s
    CROSS JOIN pg_database AS d
    WHERE d.datname = current_database();
$$;

COMMENT ON FUNCTION ops.archive_identity() IS
'What changes when a database is restored by pg_restore, moved or upgraded, and oids of tables with it. A copy of its files has the same.';

REVOKE ALL ON FUNCTION ops.archive_identity() FROM PUBLIC;

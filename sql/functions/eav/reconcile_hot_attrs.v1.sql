CREATE OR REPLACE FUNCTION eav.reconcile_hot_attrs(p_since timestamptz DEFAULT now() - interval '2 hours')
RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT eav.reconcile_hot_portion(coalesce(p_since, '-infinity'));
$$;

COMMENT ON FUNCTION eav.reconcile_hot_attrs(timestamptz) IS
'The safety net: brings entity_jsonb up to the history since p_since, takes out what should not be there, all in one transaction; returns the corrections. The job reconcile does the same in portions.';

REVOKE ALL ON FUNCTION eav.reconcile_hot_attrs(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.reconcile_hot_attrs(timestamptz) TO eav_jobs;

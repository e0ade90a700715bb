CREATE OR REPLACE FUNCTION eav.reconcile_hot_attrs(p_since timestamptz DEFAULT now() - interval '2 hours')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_attempts integer := 5;
    v_changed bigint;
BEGIN
    -- It goes over the entities again for each attribute and keeps those it has corrected: one that a flush has, which
    -- waits for one of these, makes a ring. Giving all of them back ends it.
    LOOP
        BEGIN
            v_changed := eav.reconcile_hot_portion(coalesce(p_since, '-infinity'));
            EXIT;
        EXCEPTION
            WHEN deadlock_detected THEN
                v_attempts := v_attempts - 1;
                IF v_attempts = 0 THEN
                    RAISE;
                END IF;
        END;
    END LOOP;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.reconcile_hot_attrs(timestamptz) IS
'The safety net: brings entity_jsonb up to the history since p_since, takes out what should not be there, all in one transaction; returns the corrections. The job reconcile does the same in portions.';

REVOKE ALL ON FUNCTION eav.reconcile_hot_attrs(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.reconcile_hot_attrs(timestamptz) TO eav_jobs;

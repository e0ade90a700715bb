CREATE OR REPLACE FUNCTION eav.reconcile_hot_portion(
    p_since timestamptz DEFAULT NULL, p_for interval DEFAULT interval '500 ms'
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_before_all CONSTANT bigint := -9223372036854775808;
    v_until CONSTANT timestamptz := clock_timestamp() + p_for;
    v_round eav.hot_reconcile;
    v_next bigint;
    v_merged record;
    v_swept record;
    v_changed bigint := 0;
    -- Something of it in every call, however short. And no other pass over the entities once some are locked: they stay ours
    -- until the transaction ends, and a flush that has one before them, where that pass begins, may wait for them.
    v_ended boolean := false;
BEGIN
    -- As a flush does: an attribute that turns cold waits until nobody goes by what it was.
    PERFORM eav.lock_catalog(false);
    INSERT INTO eav.hot_reconcile (singleton, since, started_at, finished_at)
    VALUES (true, '-infinity', '-infinity', '-infinity')
    ON CONFLICT (singleton) DO NOTHING;
    SELECT r.* INTO v_round FROM eav.hot_reconcile AS r FOR UPDATE;
    IF v_round.finished_at > clock_timestamp() - interval '1 minute' AND NOT v_round.told AND p_since IS NULL THEN
        UPDATE eav.hot_reconcile SET told = true;
        RETURN NULL;
    END IF;
    IF v_round.finished_at IS NOT NULL OR p_since IS NOT NULL THEN
        v_round.since := coalesce(p_since, clock_timestamp() - interval '2 hours');
        v_round.started_at := clock_timestamp();
        v_round.finished_at := NULL;
        v_round.attribute_id := 0;
        v_round.tenant_id := c_before_all;
        v_round.entity_id := c_before_all;
        v_round.corrected := 0;
        v_round.told := false;
    END IF;
    -- Attribute by attribute, one range of time of each.
    WHILE v_round.attribute_id IS NOT NULL AND NOT v_ended LOOP
        SELECT min(a.attribute_id) INTO v_next
        FROM eav.attributes AS a
        WHERE a.is_hot AND a.attribute_id > v_round.attribute_id;
        v_round.attribute_id := v_next;
        CONTINUE WHEN v_next IS NULL;
        SELECT m.* INTO v_merged FROM eav.merge_history(v_next, v_round.since, 'infinity') AS m;
        v_changed := v_changed + v_merged.o_changed;
        v_ended := p_since IS NULL AND (v_merged.o_locked > 0 OR clock_timestamp() >= v_until);
    END LOOP;
    -- Then what should not be there, entity by entity.
    WHILE v_round.attribute_id IS NULL AND v_round.finished_at IS NULL AND NOT v_ended LOOP
        SELECT s.o_last, s.o_changed INTO v_swept FROM eav.sweep_hot(v_round.tenant_id, v_round.entity_id, 2000) AS s;
        v_changed := v_changed + v_swept.o_changed;
        IF v_swept.o_last IS NOT NULL THEN
            v_round.entity_id := v_swept.o_last;
        ELSE
            SELECT min(t.tenant_id) INTO v_next FROM eav.tenants AS t WHERE t.tenant_id > v_round.tenant_id;
            v_round.tenant_id := v_next;
            v_round.entity_id := c_before_all;
            v_round.finished_at := CASE WHEN v_next IS NULL THEN clock_timestamp() END;
        END IF;
        v_ended := p_since IS NULL AND clock_timestamp() >= v_until;
    END LOOP;
    UPDATE eav.hot_reconcile
    SET
        since = v_round.since, started_at = v_round.started_at, finished_at = v_round.finished_at,
        attribute_id = v_round.attribute_id, tenant_id = v_round.tenant_id, entity_id = v_round.entity_id,
        corrected = v_round.corrected + v_changed, told = v_round.told OR p_since IS NOT NULL;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.reconcile_hot_portion(timestamptz, interval) IS
'A part of a round of the safety net, about p_for long, from where the last one ended; returns the corrections, and once NULL when the round is over. With p_since a whole round at once.';

REVOKE ALL ON FUNCTION eav.reconcile_hot_portion(timestamptz, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.reconcile_hot_portion(timestamptz, interval) TO eav_jobs;

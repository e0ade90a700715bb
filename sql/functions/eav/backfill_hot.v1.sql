-- How an attribute is switched while writes go on
--
-- The switch itself is one UPDATE, which queues it and waits for nobody. A flush that began before it still goes by
-- what the attribute was. So the first step here waits, once, until no such flush is left (eav.lock_catalog: every
-- flush holds it shared); from then on nobody writes a value where it does not belong, and what is tidied stays tidy.
-- Until then a value may be in both columns. Who knows of the switch takes it out of the wrong one when writing to the
-- right one, and who does not know writes to the wrong one: in both, the one in the wrong column is the newer.
--
-- Then the entities of the tenant are tidied, in key order, and last the history is looked through for an attribute
-- that turned hot, from the newest slice of time back to the oldest. The newer-only rule of eav.merge_hot makes all of
-- it safe to repeat and to do while values come in.
CREATE OR REPLACE FUNCTION eav.backfill_hot()
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    c_rows CONSTANT integer := 2000;
    v_began CONSTANT timestamptz := clock_timestamp();
    v_work eav.hot_backfill;
    v_attribute eav.attributes;
    v_swept record;
    v_partition record;
    v_from timestamptz;
    v_upto timestamptz;
    v_changed bigint := 0;
    v_bytes numeric;
    v_left numeric;
BEGIN
    -- One step of one attribute: the one that waited longest, so that a long history keeps no other from its turn.
    SELECT b.* INTO v_work
    FROM eav.hot_backfill AS b
    WHERE b.finished_at IS NULL
    ORDER BY b.progressed_at, b.attribute_id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT found THEN
        RETURN NULL;
    END IF;

    IF v_work.started_at IS NULL THEN
        BEGIN
            -- New flushes queue behind this one, so it does not wait for long.
            PERFORM set_config('lock_timeout', '1s', true);
            PERFORM eav.lock_catalog(true);
            v_work.started_at := clock_timestamp();
        EXCEPTION
            WHEN lock_not_available THEN
                NULL; -- a flush is taking long: at the next step again
        END;
        UPDATE eav.hot_backfill AS b
        SET started_at = v_work.started_at, progressed_at = clock_timestamp()
        WHERE b.attribute_id = v_work.attribute_id;
        RETURN 0;
    END IF;

    -- The steps that write are what the next switch has to wait for.
    PERFORM eav.lock_catalog(false);
    SELECT a.* INTO v_attribute FROM eav.attributes AS a WHERE a.attribute_id = v_work.attribute_id;
    IF v_work.tidied_at IS NULL THEN
        IF v_work.entities_total IS NULL THEN
            v_work.entities_total := (SELECT count(*) FROM eav.entity_jsonb AS e WHERE e.tenant_id = v_attribute.tenant_id);
            v_work.done_entity_id := '-9223372036854775808'::bigint;
        END IF;
        SELECT s.* INTO v_swept
        FROM eav.sweep_hot(v_attribute.tenant_id, v_work.done_entity_id, c_rows, v_attribute.name) AS s;
        v_changed := v_swept.o_changed;
        v_work.done_entity_id := coalesce(v_swept.o_last, v_work.done_entity_id);
        v_work.share_done := least(v_work.share_done + v_swept.o_seen::real / greatest(v_work.entities_total, 1), 1);
        IF v_swept.o_seen < c_rows THEN
            v_work.tidied_at := clock_timestamp();
            v_work.share_done := 0;
        END IF;
    ELSIF v_work.turned_hot THEN
        -- What comes later than now is in the future, and merged by the flush that stores it.
        v_upto := coalesce(v_work.done_until, 'infinity');
        SELECT p.* INTO v_partition
        FROM ops.partition_bounds('eav.entity_values_ts') AS p
        WHERE p.starts_at < v_upto
        ORDER BY p.starts_at DESC
        LIMIT 1;
        IF found THEN
            -- Never across two partitions; of one with nothing in it all at once.
            v_upto := least(v_upto, v_partition.ends_at);
            v_from := CASE
                WHEN pg_relation_size(v_partition.partition) = 0 THEN v_partition.starts_at
                ELSE greatest(v_upto - v_work.slice, v_partition.starts_at)
            END;
            v_changed := (SELECT m.o_changed FROM eav.merge_history(v_work.attribute_id, v_from, v_upto) AS m);
            v_work.done_until := v_from;
            v_work.slice := CASE
                WHEN clock_timestamp() - v_began < interval '200 ms' THEN least(v_work.slice * 4, interval '32 days')
                WHEN clock_timestamp() - v_began > interval '1 second' THEN greatest(v_work.slice / 4, interval '1 minute')
                ELSE v_work.slice
            END;
            SELECT
                sum(pg_relation_size(p.partition)),
                sum(pg_relation_size(p.partition) * CASE
                    WHEN p.ends_at <= v_from THEN 1
                    WHEN p.starts_at >= v_from THEN 0
                    ELSE extract(epoch FROM v_from - p.starts_at) / extract(epoch FROM p.ends_at - p.starts_at)
                END)
            INTO v_bytes, v_left
            FROM ops.partition_bounds('eav.entity_values_ts') AS p;
            v_work.share_done := coalesce(1 - v_left / nullif(v_bytes, 0), 1);
        ELSE
            v_work.turned_hot := false;
        END IF;
    END IF;
    IF v_work.tidied_at IS NOT NULL AND NOT v_work.turned_hot THEN
        v_work.finished_at := clock_timestamp();
        v_work.share_done := 1;
    END IF;
    UPDATE eav.hot_backfill AS b
    SET
        progressed_at = clock_timestamp(),
        tidied_at = v_work.tidied_at,
        finished_at = v_work.finished_at,
        expected_at = CASE
            WHEN v_work.finished_at IS NOT NULL THEN v_work.finished_at
            WHEN v_work.share_done > 0
                THEN clock_timestamp() + (clock_timestamp() - coalesce(v_work.tidied_at, v_work.started_at))
                * (1 / v_work.share_done - 1)
        END,
        done_until = v_work.done_until,
        done_entity_id = v_work.done_entity_id,
        entities_total = v_work.entities_total,
        entities_done = v_work.entities_done + v_changed,
        slice = v_work.slice,
        share_done = v_work.share_done
    WHERE b.attribute_id = v_work.attribute_id;
    RETURN v_changed;
END;
$$;

COMMENT ON FUNCTION eav.backfill_hot() IS
'One step of the oldest work in eav.hot_backfill, a second or so, to be committed before the next one; returns the entities changed, NULL when there is no work.';

REVOKE ALL ON FUNCTION eav.backfill_hot() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.backfill_hot() TO eav_jobs;

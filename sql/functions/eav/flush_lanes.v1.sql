-- How a flush knows what it moves, without a lock on producers and without deleting rows
--
-- Every staged row carries the id of the transaction that staged it (batch). A flush takes a snapshot and moves
-- the rows of all transactions that had finished by then and were not flushed before; the marker it leaves
-- (through, except_for) says which those are. A producer that is still writing is in except_for and comes later;
-- one that committed is complete. What a source stages first commits first, so that a checkpoint never runs ahead
-- of its rows.
--
-- lint: ignore-file dynamic-sql: the rows come from a query built here of lane numbers and %L literals
CREATE OR REPLACE FUNCTION eav.flush_lanes(
    p_limit integer, p_only integer DEFAULT NULL, p_quarantine boolean DEFAULT false, p_replan boolean DEFAULT false
)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Slots have no statistics: the planner expects a handful of rows and would sort where hashing is four times
-- faster. Where it must sort all the same, the price it then sees is no reason to compile the plan.
SET enable_sort = off
-- eav.prefer_join changes these two until the function ends.
SET enable_hashjoin = on
SET enable_nestloop = on
SET jit = off
SET work_mem = '64MB'
AS $$
DECLARE
    -- Emptying a slot costs a dead row in pg_class, which an old snapshot keeps alive: every 2 MiB, not every 100 ms.
    c_rotate_bytes CONSTANT bigint := 2 * 1024 * 1024;
    c_idle CONSTANT interval := interval '10 seconds';
    -- Rows of short lanes: a tenth of a second's work.
    c_enough CONSTANT bigint := 10000;
    c_patience CONSTANT interval := interval '1 second';
    c_ahead CONSTANT interval := interval '5 minutes';
    -- A flush of more rows, by one enormous transaction or by its limit, has no list of them: arrays end at 1 GB.
    c_places CONSTANT bigint := 1000000;
    v_now CONSTANT timestamptz := clock_timestamp();
    v_lanes integer[] := ARRAY[]::integer[];
    v_lane integer;
    v_long boolean;
    v_recent boolean;
    v_some_long boolean := false;
    v_locked integer[];
    v_awaited integer;
    v_share bigint;
    v_snapshot pg_snapshot;
    v_through xid8;
    v_in_progress xid8[];
    v_marker record;
    v_plan jsonb;
    v_backlog text[];
    v_available bigint := 0;
    v_planned bigint := 0;
    v_plans jsonb[] := array_fill(NULL::jsonb, ARRAY[5], ARRAY[0]);
    v_closed boolean[] := array_fill(false, ARRAY[5], ARRAY[0]);
    v_taken integer[] := array_fill(0, ARRAY[5], ARRAY[0]);
    v_except text[] := array_fill('{}'::text, ARRAY[5], ARRAY[0]);
    v_old_through xid8[] := array_fill('0'::xid8, ARRAY[5], ARRAY[0]);
    v_old_except text[] := array_fill('{}'::text, ARRAY[5], ARRAY[0]);
    v_emptied_at timestamptz[] := array_fill('-infinity'::timestamptz, ARRAY[5], ARRAY[0]);
    v_cut xid8[] := array_fill('0'::xid8, ARRAY[5], ARRAY[0]);
    v_rows text;
    v_starts_at timestamptz;
    v_ends_at timestamptz;
    v_total bigint := 0;
    v_stored bigint := 0;
    v_rejected bigint := 0;
    v_count bigint;
    v_unknown_tenants bigint[];
    v_unknown_entities bigint[];
    v_unknown_check text := 'false';
    v_source bigint;
    v_position bigint;
    v_source_slots oid[];
    v_source_ctids tid[];
    v_sources bigint[] := ARRAY[]::bigint[];
    v_positions bigint[] := ARRAY[]::bigint[];
    v_slots oid[];
    v_ctids tid[];
    v_stored_slots oid[];
    v_stored_ctids tid[];
    v_source_hot_slots oid[];
    v_source_hot_ctids tid[];
    v_hot_slots oid[];
    v_hot_ctids tid[];
    v_not_exceptions text := '';
    v_new_through xid8;
    v_new_except xid8[];
BEGIN
    -- Another flusher that has all there is does not keep it: who finds nothing waits for one of its lanes, once, and
    -- so has it before the other can take both again.
    LOOP
        v_lanes := ARRAY[]::integer[];
        v_locked := ARRAY[]::integer[];
        -- Lanes nobody else is flushing, until there is enough to do, so that two flushers share them: the short ones
        -- first, so that none waits for another's backlog, then long ones; of each kind those whose turn is longest ago.
        -- Whatever the short ones hold, a long one has its turn every second.
        FOR v_lane, v_long, v_recent, v_share IN
            SELECT
                l.lane,
                l.bytes > c_rotate_bytes,
                coalesce(k.flushed_at > v_now - c_patience, false),
                greatest(1, p_limit / count(*) OVER ())
            FROM (
                SELECT
                    n.lane,
                    sum(pg_relation_size(format('eav.staging_%s_%s', n.lane, m.slot)::regclass)) AS bytes
                FROM generate_series(0, 4) AS n (lane)
                CROSS JOIN generate_series(0, 2) AS m (slot)
                WHERE p_only IS NULL OR n.lane = p_only
                GROUP BY n.lane
            ) AS l
            LEFT JOIN eav.staging_marker AS k ON l.lane = k.lane
            WHERE l.bytes > 0
            ORDER BY l.lane IS DISTINCT FROM v_awaited, 2, k.flushed_at NULLS FIRST, random()
        LOOP
            CONTINUE WHEN NOT v_long AND v_available >= least(c_enough, 4::bigint * p_limit);
            EXIT WHEN v_long AND v_available >= p_limit AND (v_recent OR v_some_long);
            IF NOT pg_try_advisory_xact_lock(6644086, v_lane) THEN
                v_locked := v_locked || v_lane;
                CONTINUE;
            END IF;
            v_lanes := v_lanes || v_lane;
            v_snapshot := pg_current_snapshot();
            v_through := ((pg_snapshot_xmax(v_snapshot)::text)::bigint - 1)::text::xid8;
            -- Rows that this very transaction staged wait for the next flush: it may still add to them.
            v_in_progress := array_remove(
                array(SELECT pg_snapshot_xip(v_snapshot)) || pg_current_xact_id_if_assigned(), NULL
            );
            v_plan := NULL;
            FOR v_marker IN SELECT m.* FROM eav.staging_marker AS m WHERE m.lane = v_lane LOOP
                IF v_marker.through > v_through THEN
                    RAISE object_not_in_prerequisite_state USING
                        MESSAGE = 'staging was copied from another server: its markers name transactions of the future',
                        HINT = 'Once, after a restore or a move: SELECT eav.adopt_staging()';
                END IF;
                v_old_through[v_lane] := v_marker.through;
                v_old_except[v_lane] := v_marker.except_for::text;
                v_emptied_at[v_lane] := v_marker.emptied_at;
                v_plan := v_marker.plan;
            END LOOP;
            -- A plan for much smaller or larger steps is made again.
            IF p_replan OR v_plan IS NULL OR (v_plan -> 'step')::bigint NOT BETWEEN p_limit / 10 AND p_limit THEN
                v_plan := eav.plan_lane(
                    v_lane, v_share, v_through, v_in_progress, v_old_through[v_lane], v_old_except[v_lane]::xid8[]
                );
            END IF;
            v_plans[v_lane] := v_plan;
            v_except[v_lane] := array(SELECT jsonb_array_elements_text(v_plan -> 'except'))::text;
            SELECT coalesce(sum((c.cut -> 'rows')::bigint), 0) INTO v_count FROM jsonb_array_elements(v_plan -> 'cuts') AS c (cut);
            v_available := v_available + v_count;
            v_some_long := v_some_long OR (v_long AND v_count > 0);
        END LOOP;
        EXIT WHEN v_available > 0 OR v_awaited IS NOT NULL OR p_only IS NOT NULL;
        -- Of a higher number than those it has: two that wait for each other would both wait in vain.
        v_awaited := (SELECT l FROM unnest(v_locked) AS l WHERE l > ALL(v_lanes) ORDER BY random() LIMIT 1);
        EXIT WHEN v_awaited IS NULL;
        PERFORM eav.await_lane(v_awaited);
    END LOOP;
    IF cardinality(v_lanes) = 0 THEN
        RETURN 0;
    END IF;

    -- Of each lane its first cut; of what p_limit leaves, further ones: in their order and without a gap, because
    -- what a source staged first is flushed first.
    FOR v_lane, v_count, v_new_through IN
        SELECT l.lane, (c.cut -> 'rows')::bigint, (c.cut ->> 'through')::xid8
        FROM unnest(v_lanes) WITH ORDINALITY AS l (lane, place)
        CROSS JOIN LATERAL jsonb_array_elements(v_plans[l.lane] -> 'cuts') WITH ORDINALITY AS c (cut, number)
        ORDER BY c.number, l.place
    LOOP
        v_closed[v_lane] := v_closed[v_lane] OR (v_taken[v_lane] > 0 AND v_planned + v_count > p_limit);
        IF NOT v_closed[v_lane] THEN
            v_taken[v_lane] := v_taken[v_lane] + 1;
            v_cut[v_lane] := v_new_through;
            v_planned := v_planned + v_count;
        END IF;
    END LOOP;

    -- What they are, as SQL. Where the rows of finished transactions lie does not change any more: only those
    -- blocks are read, three times, and exceptions and hot rows by their place once more.
    SELECT
        string_agg(
            format(
                'SELECT %s AS lane, s.tableoid AS slot, s.ctid AS at, s.* FROM eav.staging_%s_%s AS s '
                || 'WHERE s.ctid >= %L::tid AND s.ctid <= %L::tid AND %s',
                p.lane, p.lane, p.slot, p.first, p.last,
                eav.batch_condition(
                    v_cut[p.lane], v_except[p.lane]::xid8[], v_old_through[p.lane], v_old_except[p.lane]::xid8[]
                )
            ),
            ' UNION ALL '
        )
    INTO v_rows
    FROM (
        SELECT l.lane, s.slot, min((s.place ->> 0)::tid) AS first, max((s.place ->> 1)::tid) AS last
        FROM unnest(v_lanes) AS l (lane)
        CROSS JOIN LATERAL jsonb_array_elements(v_plans[l.lane] -> 'cuts') WITH ORDINALITY AS c (cut, number)
        CROSS JOIN LATERAL jsonb_each(c.cut -> 'slots') AS s (slot, place)
        WHERE c.number <= v_taken[l.lane]
        GROUP BY l.lane, s.slot
    ) AS p;

    -- Which times have a partition. Without one for this very moment maintenance has failed: nothing is rejected for
    -- that.
    SELECT w.starts_at, least(w.ends_at, v_now + c_ahead) INTO v_starts_at, v_ends_at FROM eav.value_window AS w;
    IF v_starts_at > v_now OR v_ends_at <= v_now OR v_starts_at IS NULL THEN
        PERFORM ops.maintain_partitions();
        SELECT w.starts_at, least(w.ends_at, v_now + c_ahead) INTO v_starts_at, v_ends_at FROM eav.value_window AS w;
        IF v_starts_at > v_now OR v_ends_at <= v_now OR v_starts_at IS NULL THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = 'eav.entity_values_ts has no partition for now: values stay staged',
                HINT = 'See ops.partition_policies.last_error, then: python -m jobs run maintain-partitions';
        END IF;
    END IF;

    IF v_rows IS NOT NULL AND p_quarantine THEN
        -- These rows made every flush fail. They are kept, and nobody waits for them any longer.
        EXECUTE format(
            $sql$
            INSERT INTO eav.entity_values_rejected (
                source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool,
                reason, attribute, value_number, value_text, raw
            )
            SELECT
                r.source_id, r.source_offset, r.tenant_id, r.entity_id, r.attribute_id, r.observed_at, r.value_time,
                r.value_bool, 'quarantined', r.attribute, r.value_number, r.value_text, r.raw
            FROM (%s) AS r
            $sql$,
            v_rows
        );
        GET DIAGNOSTICS v_rejected = ROW_COUNT;
        v_total := v_rejected;
        EXECUTE format(
            $sql$
            SELECT array_agg(q.source_id), array_agg(q.position)
            FROM (SELECT r.source_id, max(r.source_offset) AS position FROM (%s) AS r GROUP BY r.source_id) AS q
            $sql$,
            v_rows
        ) INTO v_sources, v_positions;
    ELSIF v_rows IS NOT NULL THEN
        -- Entities nobody has heard of: registered for tenants that want that, else an exception below. An entity has
        -- several values in a flush.
        PERFORM eav.prefer_join(v_planned / 4, 'eav.entities');
        EXECUTE format(
            $sql$
            SELECT array_agg(u.tenant_id), array_agg(u.entity_id)
            FROM (
                SELECT DISTINCT r.tenant_id, r.entity_id
                FROM (%s) AS r
                WHERE r.reason IS NULL AND r.tenant_id IS NOT NULL AND r.entity_id IS NOT NULL
                    AND r.observed_at >= $1 AND r.observed_at < $2
            ) AS u
            WHERE NOT EXISTS (SELECT FROM eav.entities AS e WHERE e.tenant_id = u.tenant_id AND e.entity_id = u.entity_id)
            $sql$,
            v_rows
        ) INTO v_unknown_tenants, v_unknown_entities USING v_starts_at, v_ends_at;
        IF v_unknown_tenants IS NOT NULL THEN
            INSERT INTO eav.entities (tenant_id, entity_id)
            SELECT u.tenant_id, u.entity_id
            FROM unnest(v_unknown_tenants, v_unknown_entities) AS u (tenant_id, entity_id)
            INNER JOIN eav.tenants AS t ON u.tenant_id = t.tenant_id AND t.auto_register
            ORDER BY u.tenant_id, u.entity_id
            ON CONFLICT (tenant_id, entity_id) DO NOTHING;
            -- EXECUTE: no plan of it is kept that was made for another number of them.
            PERFORM eav.prefer_join(cardinality(v_unknown_entities), 'eav.entities');
            EXECUTE
                $sql$
                SELECT array_agg(u.tenant_id), array_agg(u.entity_id)
                FROM unnest($1, $2) AS u (tenant_id, entity_id)
                WHERE NOT EXISTS (SELECT FROM eav.entities AS e WHERE e.tenant_id = u.tenant_id AND e.entity_id = u.entity_id)
                $sql$
            INTO v_unknown_tenants, v_unknown_entities USING v_unknown_tenants, v_unknown_entities;
            IF v_unknown_tenants IS NOT NULL THEN
                v_unknown_check := '(r.tenant_id, r.entity_id) IN (SELECT u.t, u.e FROM unnest($3, $4) AS u (t, e))';
            END IF;
        END IF;

        -- One look at every row: of each source how many, how far, which are exceptions, and which of the others hot.
        PERFORM eav.prefer_join(v_planned, 'eav.attributes');
        FOR v_source, v_position, v_count, v_source_slots, v_source_ctids, v_source_hot_slots, v_source_hot_ctids
        IN EXECUTE format(
            $sql$
            SELECT
                j.source_id,
                max(j.source_offset) AS position,
                count(*) AS count,
                array_agg(j.slot) FILTER (WHERE j.exception) AS slots,
                array_agg(j.at) FILTER (WHERE j.exception) AS ctids,
                array_agg(j.slot) FILTER (WHERE j.is_hot AND NOT j.exception) AS hot_slots,
                array_agg(j.at) FILTER (WHERE j.is_hot AND NOT j.exception) AS hot_ctids
            FROM (
                SELECT
                    r.source_id,
                    r.source_offset,
                    r.slot,
                    r.at,
                    a.is_hot AND $5 AS is_hot,
                    r.reason IS NOT NULL
                    OR eav.reject_reason(
                        r.observed_at, r.value_number, r.value_text, r.value_bool, r.value_time, a.data_type,
                        a.retired_at, a.min_value, a.max_value,
                        -- what is kept or compared as JSON is no place for long texts
                        CASE
                            WHEN a.is_hot OR a.allowed IS NOT NULL THEN least(a.max_length, 4096) ELSE a.max_length
                        END,
                        a.allowed, a.schema, $1, $2
                    ) IS NOT NULL
                    OR r.entity_id IS NULL
                    OR %s AS exception
                FROM (%s) AS r
                LEFT JOIN eav.attributes AS a ON r.attribute_id = a.attribute_id AND r.tenant_id = a.tenant_id
                OFFSET 0 -- judge once, not once for each aggregate
            ) AS j
            GROUP BY j.source_id
            $sql$,
            v_unknown_check, v_rows
        ) USING v_starts_at, v_ends_at, v_unknown_tenants, v_unknown_entities, v_planned <= c_places
        LOOP
            v_total := v_total + v_count;
            v_sources := v_sources || v_source;
            v_positions := v_positions || v_position;
            v_slots := v_slots || v_source_slots;
            v_ctids := v_ctids || v_source_ctids;
            v_hot_slots := v_hot_slots || v_source_hot_slots;
            v_hot_ctids := v_hot_ctids || v_source_hot_ctids;
        END LOOP;
    END IF;

    IF v_total > 0 AND NOT p_quarantine THEN
        IF v_slots IS NOT NULL THEN
            v_not_exceptions := ' WHERE NOT EXISTS (SELECT FROM unnest($1, $2) AS x (slot, at) WHERE x.slot = r.slot AND x.at = r.at)';
            -- Of both the planner expects a handful, and would compare each with each.
            PERFORM set_config('enable_hashjoin', 'on', true), set_config('enable_nestloop', 'off', true);
        END IF;
        EXECUTE format(
            $sql$
            INSERT INTO eav.entity_values_ts (
                tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool, value_number, value_text
            )
            SELECT
                r.tenant_id, r.entity_id, r.attribute_id, r.observed_at, r.value_time, r.value_bool, r.value_number, r.value_text
            FROM (%s) AS r %s
            -- Neighbours in the B-tree, one after the other.
            ORDER BY r.attribute_id
            $sql$,
            v_rows, v_not_exceptions
        ) USING v_slots, v_ctids;
        GET DIAGNOSTICS v_stored = ROW_COUNT;
        IF v_slots IS NOT NULL THEN
            SELECT v_stored + e.o_stored, e.o_rejected, coalesce(e.o_slots, '{}'), coalesce(e.o_ctids, '{}')
            INTO v_stored, v_rejected, v_stored_slots, v_stored_ctids
            FROM eav.flush_exceptions(v_slots, v_ctids, v_starts_at, v_ends_at) AS e;
        END IF;
        IF v_planned <= c_places THEN
            PERFORM eav.prefer_join(coalesce(cardinality(v_hot_slots), 0), 'eav.attributes');
            PERFORM eav.flush_hot(
                eav.staged_rows(v_hot_slots), v_hot_slots, v_hot_ctids, v_stored_slots, v_stored_ctids
            );
        ELSE
            PERFORM eav.flush_hot(
                format('SELECT r.* FROM (%s) AS r %s', v_rows, v_not_exceptions), v_slots, v_ctids,
                v_stored_slots, v_stored_ctids
            );
        END IF;
    END IF;

    -- The books must balance, or nothing happened.
    IF v_stored + v_rejected <> v_total OR v_total <> v_planned THEN
        RAISE data_corrupted USING MESSAGE = format(
            'flush of %s rows found %s, stored %s and rejected %s: rolled back, nothing is lost',
            v_planned, v_total, v_stored, v_rejected
        );
    END IF;
    INSERT INTO eav.ingest_checkpoint_log (source_id, position)
    SELECT p.source_id, p.position
    FROM unnest(v_sources, v_positions) AS p (source_id, position)
    WHERE p.source_id IS NOT NULL
        AND p.position > coalesce(
            (SELECT max(c.position) FROM eav.ingest_checkpoint_log AS c WHERE c.source_id = p.source_id), -1
        );

    FOREACH v_lane IN ARRAY v_lanes LOOP
        v_new_through := greatest(v_old_through[v_lane], v_cut[v_lane]);
        v_new_except := array(
            SELECT e FROM unnest(v_except[v_lane]::xid8[]) AS e WHERE e <= v_new_through
            UNION
            SELECT e FROM unnest(v_old_except[v_lane]::xid8[]) AS e WHERE e > v_cut[v_lane]
        );
        SELECT jsonb_agg(c.cut ORDER BY c.number) INTO v_plan
        FROM jsonb_array_elements(v_plans[v_lane] -> 'cuts') WITH ORDINALITY AS c (cut, number)
        WHERE c.number > v_taken[v_lane];
        v_backlog := array(
            SELECT DISTINCT format('eav.staging_%s_%s', v_lane, k.slot)
            FROM jsonb_array_elements(v_plan) AS c (cut)
            CROSS JOIN LATERAL jsonb_object_keys(c.cut -> 'slots') AS k (slot)
        );
        v_count := eav.empty_slots(
            v_lane, v_new_through, v_new_except,
            CASE WHEN v_total = 0 AND v_emptied_at[v_lane] < v_now - c_idle THEN 1 ELSE c_rotate_bytes END,
            v_backlog
        );
        IF v_taken[v_lane] > 0 OR v_count > 0 THEN
            EXECUTE format(
                'INSERT INTO eav.%I (lane, through, except_for, emptied_at, plan) VALUES ($1, $2, $3, $4, $5)',
                CASE WHEN v_lane = 0 THEN 'staging_progress_durable' ELSE 'staging_progress' END
            ) USING
                v_lane, v_new_through, v_new_except, CASE WHEN v_count > 0 THEN v_now ELSE v_emptied_at[v_lane] END,
                jsonb_set(v_plans[v_lane], '{cuts}', v_plan);
        END IF;
    END LOOP;
    RETURN v_total;
END;
$$;

COMMENT ON FUNCTION eav.flush_lanes(integer, integer, boolean, boolean) IS
'One flush: moves what was staged and committed, of lanes that nobody else is flushing (or p_only). Returns the rows moved. With p_quarantine it rejects them all, unseen; with p_replan it trusts no plan of an earlier flush.';

REVOKE ALL ON FUNCTION eav.flush_lanes(integer, integer, boolean, boolean) FROM PUBLIC;

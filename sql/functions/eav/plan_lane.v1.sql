-- A limited flush must not look through the whole backlog each time it is called. One look finds what of a lane is
-- finished, which transactions make a step of it, and between which rows each lies; the marker keeps the cuts that are
-- left for the next flushes. What a plan knows stays true: those transactions have ended, and a slot
-- is not emptied before all of its rows are flushed. What was still going on when it was made is in `except`.
--
-- lint: ignore-file dynamic-sql: the rows come from a query built here of lane numbers and %L literals
CREATE OR REPLACE FUNCTION eav.plan_lane(
    p_lane integer, p_step bigint, p_through xid8, p_except xid8[], p_old_through xid8, p_old_except xid8[]
)
RETURNS jsonb
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The plan is a value in every marker that follows: it stays small.
    c_most CONSTANT integer := 256;
    v_condition CONSTANT text := eav.batch_condition(p_through, p_except, p_old_through, p_old_except);
    v_rows text;
    v_batch xid8;
    v_batch_count bigint;
    v_slot integer;
    v_slots integer[];
    v_firsts tid[];
    v_lasts tid[];
    v_cuts jsonb[] := ARRAY[]::jsonb[];
    v_through xid8;
    v_count bigint := 0;
    v_first tid[] := ARRAY[NULL, NULL, NULL]::tid[];
    v_last tid[] := ARRAY[NULL, NULL, NULL]::tid[];
BEGIN
    SELECT string_agg(
        format(
            'SELECT %s AS slot, s.batch, count(*) AS count, min(s.ctid) AS first, max(s.ctid) AS last '
            || 'FROM eav.staging_%s_%s AS s WHERE %s GROUP BY s.batch',
            n.slot, p_lane, n.slot, v_condition
        ),
        ' UNION ALL '
    )
    INTO v_rows
    FROM generate_series(0, 2) AS n (slot)
    WHERE pg_relation_size(format('eav.staging_%s_%s', p_lane, n.slot)::regclass) > 0;
    IF v_rows IS NOT NULL THEN
        FOR v_batch, v_batch_count, v_slots, v_firsts, v_lasts IN EXECUTE format(
            $sql$
            SELECT b.batch, sum(b.count), array_agg(b.slot), array_agg(b.first), array_agg(b.last)
            FROM (%s) AS b
            GROUP BY b.batch
            ORDER BY b.batch
            $sql$,
            v_rows
        )
        LOOP
            -- Whole transactions in the order of their ids, at least one.
            IF v_count > 0 AND v_count + v_batch_count > p_step THEN
                v_cuts := v_cuts || eav.plan_cut(v_through, v_count, v_first, v_last);
                v_count := 0;
                v_first := ARRAY[NULL, NULL, NULL]::tid[];
                v_last := v_first;
                EXIT WHEN cardinality(v_cuts) = c_most;
            END IF;
            v_through := v_batch;
            v_count := v_count + v_batch_count;
            FOR v_place IN 1..cardinality(v_slots) LOOP
                v_slot := v_slots[v_place] + 1;
                v_first[v_slot] := least(v_first[v_slot], v_firsts[v_place]);
                v_last[v_slot] := greatest(v_last[v_slot], v_lasts[v_place]);
            END LOOP;
        END LOOP;
        IF v_count > 0 THEN
            v_cuts := v_cuts || eav.plan_cut(v_through, v_count, v_first, v_last);
        END IF;
    END IF;
    RETURN jsonb_build_object('step', p_step, 'except', p_except::text[], 'cuts', to_jsonb(v_cuts));
END;
$$;

COMMENT ON FUNCTION eav.plan_lane(integer, bigint, xid8, xid8[], xid8, xid8[]) IS
'What of a lane is finished and not flushed, cut into steps of whole transactions, at most p_step rows each unless one transaction has more: {"step", "except", "cuts": [{"through", "rows", "slots": {"0": [first, last]}}]}.';

REVOKE ALL ON FUNCTION eav.plan_lane(integer, bigint, xid8, xid8[], xid8, xid8[]) FROM PUBLIC;

CREATE OR REPLACE FUNCTION eav.empty_slots(
    p_lane integer, p_through xid8, p_except xid8[], p_rotate_bytes bigint, p_backlog text[]
)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_slot text;
    v_unflushed boolean;
    v_emptied integer := 0;
BEGIN
    -- Producers move on to the next slot once it is empty. Which slot they write to never decides what is
    -- flushed: it only decides which slots can be emptied without waiting for anybody.
    IF pg_relation_size(eav.staging_slot(p_lane)::regclass) >= p_rotate_bytes THEN
        IF pg_relation_size(eav.staging_slot(p_lane, 1)::regclass) = 0 THEN
            PERFORM nextval(format('eav.staging_turn_%s', p_lane)::regclass);
        ELSIF pg_relation_size(eav.staging_slot(p_lane, 2)::regclass) = 0 THEN
            PERFORM nextval(format('eav.staging_turn_%s', p_lane)::regclass);
            PERFORM nextval(format('eav.staging_turn_%s', p_lane)::regclass);
        END IF;
    END IF;
    FOR v_slot IN SELECT eav.staging_slot(p_lane, a.ahead) FROM generate_series(1, 2) AS a (ahead) LOOP
        CONTINUE WHEN pg_relation_size(v_slot::regclass) = 0 OR v_slot = ANY(p_backlog);
        BEGIN
            -- A producer still in there: it is emptied another time.
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT', v_slot::regclass);
            -- Now nobody can add a row, and this statement sees all there are. A row that is not durable
            -- keeps the slot.
            EXECUTE format('SELECT EXISTS (SELECT FROM %s AS s WHERE s.batch > $1 OR s.batch = ANY($2))', v_slot::regclass)
            INTO v_unflushed USING p_through, p_except;
            IF NOT v_unflushed THEN
                EXECUTE format('TRUNCATE %s', v_slot::regclass);
                v_emptied := v_emptied + 1;
            END IF;
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
        END;
    END LOOP;
    RETURN v_emptied;
END;
$$;

COMMENT ON FUNCTION eav.empty_slots(integer, xid8, xid8[], bigint, text[]) IS
'Turns a lane to its next slot when the current one holds p_rotate_bytes, and truncates the others if all their rows are durable; those of p_backlog are known to hold more.';

REVOKE ALL ON FUNCTION eav.empty_slots(integer, xid8, xid8[], bigint, text[]) FROM PUBLIC;

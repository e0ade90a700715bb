CREATE OR REPLACE FUNCTION eav.hot_switched()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT new.is_hot AND NOT old.is_hot THEN
        RETURN NULL; -- there is no value that would have to move
    END IF;
    INSERT INTO eav.hot_backfill AS b (attribute_id, turned_hot) VALUES (new.attribute_id, new.is_hot AND NOT old.is_hot)
    ON CONFLICT (attribute_id) DO UPDATE
        SET
            requested_at = now(),
            progressed_at = '-infinity',
            started_at = NULL,
            tidied_at = NULL,
            finished_at = NULL,
            expected_at = NULL,
            done_entity_id = NULL,
            entities_total = NULL,
            entities_done = 0,
            share_done = 0,
            -- A value that only moves does not need the history, unless that was not through yet.
            turned_hot = excluded.turned_hot OR (new.is_hot AND old.is_hot AND b.turned_hot AND b.finished_at IS NULL),
            done_until = CASE WHEN new.is_hot AND old.is_hot AND b.finished_at IS NULL THEN b.done_until END;
    RETURN NULL;
END;
$$;

COMMENT ON FUNCTION eav.hot_switched() IS
'Trigger: an attribute that turned hot, cold, volatile or back is queued in eav.hot_backfill.';

REVOKE ALL ON FUNCTION eav.hot_switched() FROM PUBLIC;

CREATE OR REPLACE FUNCTION eav.hot_switched()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO eav.hot_backfill AS b (attribute_id, turned_hot) VALUES (new.attribute_id, new.is_hot)
    ON CONFLICT (attribute_id) DO UPDATE
        SET turned_hot = excluded.turned_hot, requested_at = now(), finished_at = NULL, done_entity_id = NULL, entities_done = 0;
    RETURN NULL;
END;
$$;

COMMENT ON FUNCTION eav.hot_switched() IS 'Trigger: an attribute that turned hot or cold is queued in eav.hot_backfill.';

REVOKE ALL ON FUNCTION eav.hot_switched() FROM PUBLIC;

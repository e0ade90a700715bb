CREATE OR REPLACE FUNCTION eav.attributes_guard()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF tg_op = 'UPDATE' AND (new.attribute_id, new.tenant_id, new.name, new.data_type)
        = (old.attribute_id, old.tenant_id, old.name, old.data_type) THEN
        RETURN new;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'an attribute is dropped, renamed or retyped under READ COMMITTED only: an older snapshot may not see its values';
    END IF;
    -- A flush under way may be storing the first value of this attribute: wait for it, then look.
    PERFORM eav.lock_catalog(true);
    IF EXISTS (
        SELECT FROM eav.entity_values_ts AS v
        WHERE v.tenant_id = old.tenant_id AND v.attribute_id = old.attribute_id
    ) THEN
        RAISE restrict_violation USING
            MESSAGE = format('attribute %s (id %s) has values: it cannot be dropped, renamed or retyped', old.name, old.attribute_id),
            HINT = 'Retire it: SELECT eav.retire_attribute(id). Its values stay readable, new ones are rejected.';
    END IF;
    IF tg_op = 'DELETE' THEN
        RETURN old;
    END IF;
    RETURN new;
END;
$$;

COMMENT ON FUNCTION eav.attributes_guard() IS 'Trigger: an attribute with values keeps its name, type and tenant, and is never dropped.';

REVOKE ALL ON FUNCTION eav.attributes_guard() FROM PUBLIC;

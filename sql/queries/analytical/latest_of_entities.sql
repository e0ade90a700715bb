-- answers: the last value of a cold attribute for each of some entities, in a time window
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param entities: their ids, like {1,2,3}
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: entity_values_ts_active_idx, entity_values_ts_sorted_idx where compacted: the attribute's rows of the
--   window, once for all entities
SELECT DISTINCT ON (v.entity_id)
    v.entity_id,
    v.observed_at,
    eav.value_to_jsonb(v.value_number, v.value_text, v.value_bool, v.value_time) AS latest
FROM eav.entity_values_ts AS v
WHERE
    v.tenant_id = :'tenant_id'
    AND v.attribute_id = (
        SELECT a.attribute_id
        FROM eav.attributes AS a
        WHERE a.tenant_id = :'tenant_id' AND a.name = :'attribute'::text
    )
    -- Not `= any(…)`: of an array that the plan does not know, every row is compared with every entity in turn.
    AND v.entity_id IN (SELECT wanted.entity_id FROM unnest(:'entities'::bigint[]) AS wanted (entity_id))
    AND v.observed_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
    AND v.observed_at <= :'until'::timestamptz
ORDER BY v.entity_id ASC, v.observed_at DESC;

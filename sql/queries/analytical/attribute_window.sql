-- answers: every value of one attribute in a time window, newest first
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: entity_values_ts_active_idx and the BRIN index of the time; entity_values_ts_sorted_idx where compacted
SELECT
    v.entity_id,
    v.observed_at,
    eav.value_to_jsonb(v.value_number, v.value_text, v.value_bool, v.value_time) AS measured
FROM eav.entity_values_ts AS v
WHERE
    v.tenant_id = :'tenant_id'
    AND v.attribute_id = (
        SELECT a.attribute_id
        FROM eav.attributes AS a
        WHERE a.tenant_id = :'tenant_id' AND a.name = :'attribute'::text
    )
    AND v.observed_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
    AND v.observed_at <= :'until'::timestamptz
ORDER BY v.observed_at DESC, v.entity_id ASC
LIMIT :'rows';

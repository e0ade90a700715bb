-- answers: how old the newest value of an attribute is, as a reader sees it; no row if there is none in the
--   window
-- role: eav_app
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: entity_values_ts_active_idx and the BRIN index of the time: the attribute's rows of the window, so that a
--   short window is quicker
SELECT
    v.observed_at,
    clock_timestamp() - v.observed_at AS age
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
ORDER BY v.observed_at DESC
LIMIT 1;

-- answers: all that a tenant has measured in a time window, attribute by attribute: values, entities,
--   first, last; the most first
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- param rows = 100: how many at most
-- index: none on a partition that is not compacted, which is read whole, or by time with
--   entity_values_ts_observed_at_idx (BRIN); entity_values_ts_sorted_idx finds the tenant in a compacted one
SELECT
    a.name AS attribute_name,
    a.data_type,
    a.unit,
    a.is_hot,
    t.count,
    t.entities,
    t.first_at,
    t.last_at
FROM (
    SELECT
        v.attribute_id,
        count(*) AS count,
        count(DISTINCT v.entity_id) AS entities,
        min(v.observed_at) AS first_at,
        max(v.observed_at) AS last_at
    FROM eav.entity_values_ts AS v
    WHERE
        v.tenant_id = :'tenant_id'
        AND v.observed_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
        AND v.observed_at <= :'until'::timestamptz
    GROUP BY v.attribute_id
) AS t
INNER JOIN eav.attributes AS a ON t.attribute_id = a.attribute_id AND a.tenant_id = :'tenant_id'
ORDER BY t.count DESC, a.name ASC
LIMIT :'rows';

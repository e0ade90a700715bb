-- answers: how a numeric attribute went over time: number of values, least, average, 95th percentile and
--   greatest of each step
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param step = 5 minutes: length of one step
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: entity_values_ts_active_idx
SELECT
    date_bin(:'step'::interval, v.observed_at, timestamptz '2000-01-01 00:00:00+00') AS starts_at,
    count(*) AS count,
    min(v.value_number) AS min,
    avg(v.value_number) AS avg,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY v.value_number::double precision) AS p95,
    max(v.value_number) AS max
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
    AND v.value_number IS NOT NULL
GROUP BY starts_at
ORDER BY starts_at;

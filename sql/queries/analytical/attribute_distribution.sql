-- answers: how the values of a numeric attribute are distributed in a time window: percentiles over all
--   entities
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: entity_values_ts_active_idx
SELECT
    count(*) AS count,
    count(DISTINCT v.entity_id) AS entities,
    min(v.value_number) AS min,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY v.value_number::double precision) AS p50,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY v.value_number::double precision) AS p90,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY v.value_number::double precision) AS p95,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY v.value_number::double precision) AS p99,
    max(v.value_number) AS max,
    avg(v.value_number) AS avg,
    stddev_samp(v.value_number) AS stddev
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
    AND v.value_number IS NOT NULL;

-- answers: a histogram of a numeric attribute in a time window: buckets of equal width from the least value
--   to the greatest
-- role: eav_analyst
-- scope: one tenant
-- param tenant_id: whose values
-- param attribute: its name
-- param buckets = 10: how many
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: entity_values_ts_active_idx
WITH found AS MATERIALIZED (
    SELECT v.value_number AS measured
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
),

span AS (
    SELECT
        min(f.measured) AS low,
        max(f.measured) AS high,
        (max(f.measured) - min(f.measured)) / :'buckets'::integer AS width
    FROM found AS f
),

counted AS (
    SELECT
        CASE
            WHEN s.width > 0 THEN least(floor((f.measured - s.low) / s.width)::integer + 1, :'buckets'::integer)
            ELSE 1
        END AS bucket,
        count(*) AS count
    FROM found AS f
    CROSS JOIN span AS s
    GROUP BY bucket
)

SELECT
    b.number AS bucket,
    s.low + (b.number - 1) * s.width AS from_value,
    s.low + b.number * s.width AS to_value,
    coalesce(c.count, 0) AS count
FROM span AS s
-- all values alike are one bucket
CROSS JOIN
    generate_series(1, CASE WHEN s.width > 0 THEN :'buckets'::integer WHEN s.low IS NOT NULL THEN 1 END)
        AS b (number)
LEFT JOIN counted AS c ON b.number = c.bucket
ORDER BY b.number;

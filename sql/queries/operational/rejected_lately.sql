-- answers: how many values were refused in the last 15 minutes, by reason, of all tenants together
-- role: eav_monitor
-- scope: none
-- index: by entity_values_rejected_pkey from its end, 100 000 rows at most
SELECT
    l.reason,
    l.rejected
FROM ops.rejected_lately(interval '15 minutes') AS l
ORDER BY l.rejected DESC, l.reason ASC;

-- answers: how the server is: connections, the longest transaction, who waits for locks, how far the oldest
--   transaction and multixact ids are, what holds vacuum back, the share of reads from memory
-- role: pg_monitor
-- scope: none
-- index: none: views of the server
WITH a AS (
    SELECT
        count(*) FILTER (WHERE v.backend_type = 'client backend') AS connections,
        count(*) FILTER (WHERE v.wait_event_type = 'Lock') AS blocked_sessions,
        max(clock_timestamp() - v.xact_start) FILTER (WHERE v.backend_type = 'client backend') AS longest_transaction,
        max(clock_timestamp() - v.state_change) FILTER (WHERE v.state LIKE 'idle in transaction%')
            AS longest_idle_in_transaction,
        max(age(v.backend_xmin)) AS session_xmin_age
    FROM pg_stat_activity AS v
    WHERE v.pid <> pg_backend_pid()
),

x AS (
    SELECT
        max(age(b.datfrozenxid)) AS xid_age,
        max(mxid_age(b.datminmxid)) AS multixact_age
    FROM pg_database AS b
),

s AS (
    SELECT max(greatest(age(r.xmin), age(r.catalog_xmin))) AS slot_xmin_age
    FROM pg_replication_slots AS r
),

p AS (
    SELECT max(age(t.transaction)) AS prepared_xid_age
    FROM pg_prepared_xacts AS t
)

SELECT
    a.connections,
    a.blocked_sessions,
    x.xid_age,
    x.multixact_age,
    d.deadlocks,
    d.temp_bytes,
    current_setting('max_connections')::integer AS max_connections,
    coalesce(a.longest_transaction, interval '0') AS longest_transaction,
    coalesce(a.longest_idle_in_transaction, interval '0') AS longest_idle_in_transaction,
    -- whoever still may see old rows: sessions, replicas that say so, slots, prepared transactions
    greatest(a.session_xmin_age, s.slot_xmin_age, p.prepared_xid_age, 0) AS oldest_xmin_age,
    100.0 * d.blks_hit / nullif(d.blks_hit + d.blks_read, 0) AS cache_hit_percent
FROM a
CROSS JOIN x
CROSS JOIN s
CROSS JOIN p
INNER JOIN pg_stat_database AS d ON d.datname = current_database();

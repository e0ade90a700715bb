-- answers: how far each replica or reader of changes is behind, in bytes and in time, as the primary sees it; no row
--   without one
-- role: pg_monitor
-- scope: none
-- index: none: a view of the server
WITH w AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn
)

SELECT
    r.application_name,
    r.client_addr,
    r.state,
    r.sync_state,
    r.write_lag,
    r.flush_lag,
    r.replay_lag,
    coalesce(s.slot_type, 'physical') AS kind,
    pg_wal_lsn_diff(w.lsn, r.sent_lsn) AS unsent_bytes,
    pg_wal_lsn_diff(w.lsn, r.replay_lsn) AS behind_bytes
FROM pg_stat_replication AS r
CROSS JOIN w
LEFT JOIN pg_replication_slots AS s ON r.pid = s.active_pid
ORDER BY behind_bytes DESC NULLS LAST, r.application_name ASC;

"""Everything that moves data: `python -m jobs` (ingest, scheduled jobs, the worker, tenants, telemetry)."""

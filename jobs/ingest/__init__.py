"""NDJSON into the staging slots: `lines` (of bytes), `parse` (to rows), `load` (into tables)."""

"""The local PostgreSQL of this clone, and throw-away servers for tests: see docs/local.md."""

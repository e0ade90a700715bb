"""The shape of every table, one module a schema; `alembic check` compares it with a migrated database."""

from migrations.tables import eav as _eav
from migrations.tables import ops as _ops
from migrations.tables.base import metadata

__all__ = ["metadata"]

metadata.info["schemas"] = [_eav.SCHEMA, _ops.SCHEMA]

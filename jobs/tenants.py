"""Tenants: made by whoever may act as the owner of the schemas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg import errors

from jobs import db
from jobs.errors import JobsError


@dataclass(frozen=True)
class Tenant:
    """A row of eav.tenants, with how many attributes it has."""

    tenant_id: int
    name: str
    auto_register: bool
    created_at: datetime
    attributes: int


def add(url: str, name: str, tenant_id: int | None, *, auto_register: bool) -> int:
    """Add a tenant and return its id; that of the tenant of this name if there is one.

    Raises JobsError if the name has another id, or the id another name.
    """
    with db.translated(url), db.connect(url, "eav_owner", "eav jobs tenant") as connection:
        try:
            row = connection.execute(
                "SELECT eav.tenant_add(%s, %s::bigint, %s)", [name, tenant_id, auto_register]
            ).fetchone()
        except (errors.UniqueViolation, errors.CheckViolation, errors.NumericValueOutOfRange) as error:
            if error.diag.constraint_name == "tenants_name_check":
                raise JobsError("a tenant's name has 1 to 200 characters") from None
            if error.diag.constraint_name == "tenants_tenant_id_check":
                raise JobsError("a tenant's id is 1 or more") from None
            raise JobsError(db.one_line(error)) from None
        assert row is not None
        number: int = row[0]
        return number


def all_tenants(url: str) -> list[Tenant]:
    """Every tenant, by id."""
    with db.translated(url), db.connect(url, "eav_owner", "eav jobs tenant") as connection:
        rows = connection.execute(
            "SELECT t.tenant_id, t.name, t.auto_register, t.created_at,"
            " (SELECT count(*) FROM eav.attributes AS a WHERE a.tenant_id = t.tenant_id)"
            " FROM eav.tenants AS t ORDER BY t.tenant_id"
        ).fetchall()
        return [Tenant(*row) for row in rows]


def find(url: str, name: str) -> int:
    """The id of the tenant of that name. Raises JobsError if there is none."""
    for tenant in all_tenants(url):
        if tenant.name == name:
            return tenant.tenant_id
    raise JobsError(f"there is no tenant {name!r}: python -m jobs tenant add {name} --auto-register")

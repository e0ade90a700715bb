"""The archive of a table as Glue and Redshift Spectrum know it, from the columns that its files have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from jobs import db
from jobs.archive.settings import Settings
from jobs.errors import JobsError

SCHEMA: Final = "archive"
"""Of the external tables in Redshift: an external schema of the Glue database."""
EXACT: Final = "__exact"

_TYPES: Final = {
    "bigint": ("bigint", "bigint"),
    "integer": ("int", "integer"),
    "smallint": ("smallint", "smallint"),
    "boolean": ("boolean", "boolean"),
    "real": ("float", "real"),
    "double precision": ("double", "double precision"),
    "bytea": ("binary", "varbyte(64000)"),
    "date": ("date", "date"),
}
_TEXT: Final = ("string", "varchar(65535)")
_INSTANT: Final = ("timestamp", "timestamp")


@dataclass(frozen=True)
class Column:
    """A column of the files: its type in Glue and in Redshift, and what is in it."""

    name: str
    glue: str
    redshift: str
    comment: str


@dataclass(frozen=True)
class Table:
    """What the files of a table look like, and the months there are."""

    name: str
    columns: list[Column]
    months: list[tuple[int, int]]

    @property
    def external(self) -> str:
        """Its name where names have no schema of ours."""
        return self.name.replace(".", "_")


def columns(archived: list[dict[str, str]]) -> list[Column]:
    """The columns of the files, from those of the table (ops.archive_columns).

    >>> [(one.name, one.glue) for one in columns([{"name": "n", "type": "numeric(9,2)", "kind": "number"}])]
    [('n', 'double'), ('n__exact', 'string')]
    """
    found = []
    for one in archived:
        name, kind, type_ = one["name"], one["kind"], one["type"]
        if kind == "number":
            glue, redshift = _TYPES["double precision"]
            found.append(Column(name, glue, redshift, f"{type_}, the nearest double"))
        elif kind == "other":
            found.append(Column(name, *_TEXT, f"{type_} as text"))
        else:
            found.append(Column(name, *_TYPES.get(type_, _INSTANT if "time" in type_ else _TEXT), type_))
        if kind in ("number", "time"):
            found.append(Column(name + EXACT, *_TEXT, f"{name} as text where that column is not exactly it"))
    return found


def table(connection: db.Connection, name: str) -> Table:
    """A table that is archived. Raises JobsError if it is none."""
    row = connection.execute(
        "SELECT ops.archive_columns(parent_table::regclass, parent_table::regclass)"
        " FROM ops.partition_policies WHERE parent_table = %s AND archive_first",
        [name],
    ).fetchone()
    if row is None:
        raise JobsError(
            f"{name} is no table whose partitions are archived: see ops.partition_policies.archive_first"
        )
    months = connection.execute(
        "SELECT DISTINCT extract(year FROM starts_at AT TIME ZONE 'UTC')::integer,"
        " extract(month FROM starts_at AT TIME ZONE 'UTC')::integer FROM ops.partition_archives"
        " WHERE parent_table = %s AND status IN ('verified', 'detached', 'dropped', 'restored') AND rows > 0"
        " ORDER BY 1, 2",
        [name],
    ).fetchall()
    return Table(name, columns(row[0]), [(year, month) for year, month in months])


def tables(connection: db.Connection) -> list[str]:
    """Those that are archived."""
    rows = connection.execute(
        "SELECT parent_table FROM ops.partition_policies WHERE archive_first ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


def glue(found: Table, settings: Settings) -> dict[str, Any]:
    """What boto3's `glue.create_table` takes. Athena finds the months by itself, by projection."""
    location = f"s3://{settings.bucket}/{settings.folder(found.name)}"
    return {
        "DatabaseName": settings.glue_database,
        "TableInput": {
            "Name": found.external,
            "Description": f"Partitions of {found.name} that were archived",
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {
                "EXTERNAL": "TRUE",
                "classification": "parquet",
                "projection.enabled": "true",
                "projection.year.type": "integer",
                "projection.year.range": "2000,2100",
                "projection.month.type": "integer",
                "projection.month.range": "1,12",
                "projection.month.digits": "2",
                "storage.location.template": f"{location}year=${{year}}/month=${{month}}/",
            },
            "PartitionKeys": [{"Name": "year", "Type": "int"}, {"Name": "month", "Type": "int"}],
            "StorageDescriptor": {
                "Columns": [
                    {"Name": one.name, "Type": one.glue, "Comment": one.comment} for one in found.columns
                ],
                "Location": location,
                "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
                "SerdeInfo": {
                    "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
                },
            },
        },
    }


def schema(settings: Settings) -> str:
    """What the external schema has to be, as a remark: the role is the warehouse's, which nobody here knows."""
    return (
        f"-- once: CREATE EXTERNAL SCHEMA {SCHEMA} FROM DATA CATALOG DATABASE '{settings.glue_database}'"
        " IAM_ROLE 'arn:aws:iam::…';"
    )


def spectrum(found: Table, settings: Settings) -> str:
    """The statements that make the external table in Redshift, and tell it the months there are."""
    location = f"s3://{settings.bucket}/{settings.folder(found.name)}"
    name = f"{SCHEMA}.{found.external}"
    listed = ",\n".join(f'    "{one.name}" {one.redshift}' for one in found.columns)
    lines = [
        f"CREATE EXTERNAL TABLE {name} (\n{listed}\n)\nPARTITIONED BY (year integer, month integer)"
        f"\nSTORED AS PARQUET\nLOCATION '{location}';"
    ]
    lines += [
        f"ALTER TABLE {name} ADD IF NOT EXISTS PARTITION (year = {year}, month = {month})"
        f" LOCATION '{location}year={year:04}/month={month:02}/';"
        for year, month in found.months
    ]
    return "\n".join(lines)

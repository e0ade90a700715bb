"""`alembic upgrade head` on an empty database."""

from __future__ import annotations

from collections.abc import Sequence

from bench.model import Figures, Line, Row, Step, at_most

DATABASE = "bench_empty"


class Migrate(Row):
    """DESIGN: `alembic upgrade head` from empty."""

    name = "migrate"
    title = "alembic upgrade head on an empty database, the whole process"
    state = "steady"

    def steps(self) -> Sequence[Step]:
        """An empty database, migrated."""
        return (self._migrate,)

    def lines(self) -> Sequence[Line]:
        """By itself."""
        return (Line("`alembic upgrade head` from empty", "ours", "s", bar=at_most(10)),)

    def _migrate(self) -> Figures:
        self.bench.create_database(DATABASE, "template0")
        try:
            return {"ours": self.bench.migrate(DATABASE)}
        finally:
            self.bench.drop_database(DATABASE)

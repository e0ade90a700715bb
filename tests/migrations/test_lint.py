"""Each check of the lint passes on a small sound repository and is seen to fail on a planted defect."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from local.server import test_server as server_of_tests
from migrations.lint import __main__ as program
from migrations.lint import database, functions, landed, outcome, revisions, style
from tests import warm

REPOSITORY = Path(__file__).resolve().parents[2]

ENVIRONMENT = """
import os
import sqlalchemy
from alembic import context

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", transaction_per_migration=True, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    url = sqlalchemy.make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    with sqlalchemy.create_engine(url).connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
"""

FIRST = '''
"""A schema, a table and every function file."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("CREATE SCHEMA eav")
    op.execute("CREATE TABLE eav.things (id bigint PRIMARY KEY, name text NOT NULL)")
    for file in sorted(Path("sql/functions").rglob("*.sql")):
        op.execute(file.read_text())
'''

SECOND = '''
"""{title}"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("SET LOCAL lock_timeout = '3s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("{statement}")
'''

FUNCTION = """\
-- The name of one thing.
CREATE OR REPLACE FUNCTION eav.thing_name(p_id bigint)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = eav, pg_temp
AS $$
DECLARE
    v_thing eav.things;
BEGIN
    SELECT t.* INTO v_thing FROM eav.things AS t WHERE t.id = p_id;
    RETURN v_thing.name;
END;
$$;

COMMENT ON FUNCTION eav.thing_name(bigint) IS 'The name of one thing; null if there is none.';

REVOKE ALL ON FUNCTION eav.thing_name(bigint) FROM PUBLIC;
"""

PROCEDURE = """\
CREATE OR REPLACE PROCEDURE eav.move_things(p_limit integer)
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM eav.things WHERE id < p_limit AND eav.thing_name(id) IS NOT NULL;
    COMMIT;
END;
$$;

COMMENT ON PROCEDURE eav.move_things (integer) IS 'Moves things, a transaction at a time.';

REVOKE ALL ON PROCEDURE eav.move_things(integer) FROM PUBLIC;
"""

ADD_COLUMN = "ALTER TABLE eav.things ADD COLUMN note text"
THING_NAME = "sql/functions/eav/thing_name.v1.sql"
MOVE_THINGS = "sql/functions/eav/move_things.v1.sql"

Plant = Callable[[str, str, str], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository without a defect."""
    files = {
        "alembic.ini": "[alembic]\nscript_location = %(here)s/migrations\npath_separator = os\n",
        "migrations/env.py": ENVIRONMENT,
        "migrations/versions/0001_first.py": FIRST,
        "migrations/versions/0002_second.py": SECOND.format(title="A column", statement=ADD_COLUMN),
        THING_NAME: FUNCTION,
        MOVE_THINGS: PROCEDURE,
        "sql/queries/operational/thing.sql": "SELECT t.name\nFROM eav.things AS t\nWHERE t.id = %(id)s;\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in (".sqlfluff", ".squawk.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def plant(root: Path) -> Plant:
    """Replace a text that must be there once, or more often, in a file of the repository."""

    def replace(name: str, sound: str, defect: str) -> None:
        path = root / name
        text = path.read_text(encoding="utf-8")
        assert sound in text
        path.write_text(text.replace(sound, defect), encoding="utf-8")

    return replace


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    """The server the tests use."""
    with server_of_tests() as server:
        yield server.url


def rules(result: outcome.Outcome) -> set[str]:
    return {finding.rule for finding in result.findings}


class TestSqlfluff:
    def test_sound_files_pass(self, root: Path) -> None:
        result = style.check(root)
        assert result == outcome.Outcome(checked="3 files")

    def test_a_keyword_in_lower_case_is_found(self, root: Path, plant: Plant) -> None:
        plant("sql/queries/operational/thing.sql", "WHERE", "where")
        (finding,) = style.check(root).findings
        assert (finding.path, finding.line) == ("sql/queries/operational/thing.sql", 3)
        assert finding.rule == "capitalisation.keywords"

    def test_a_file_that_does_not_parse_is_found(self, root: Path, plant: Plant) -> None:
        plant("sql/queries/operational/thing.sql", "FROM", "FROM FROM WHERE")
        assert style.check(root).findings

    def test_no_file_is_no_finding(self, root: Path) -> None:
        shutil.rmtree(root / "sql")
        assert style.check(root).checked == "no file under sql/"


class TestSquawk:
    def test_sound_revisions_pass(self, root: Path) -> None:
        assert revisions.check(root) == outcome.Outcome(checked="2 revisions")

    def test_a_blocking_index_is_found_in_its_revision(self, root: Path, plant: Plant) -> None:
        plant(
            "migrations/versions/0002_second.py",
            ADD_COLUMN,
            "CREATE INDEX things_name ON eav.things (name)",
        )
        (finding,) = revisions.check(root).findings
        assert finding.rule == "require-concurrent-index-creation"
        assert finding.path == "migrations/versions/0002_second.py"
        source = (root / finding.path).read_text(encoding="utf-8").splitlines()
        assert "CREATE INDEX" in source[finding.line - 1]
        assert "revision 0002" in finding.message

    def test_a_missing_lock_timeout_is_found(self, root: Path, plant: Plant) -> None:
        plant("migrations/versions/0002_second.py", "SET LOCAL lock_timeout = '3s'", "SELECT 1")
        assert rules(revisions.check(root)) == {"require-lock-timeout"}

    def test_a_revision_that_cannot_be_rendered_is_named(self, root: Path, plant: Plant) -> None:
        plant("migrations/versions/0002_second.py", "op.execute", "op.no_such_operation")
        with pytest.raises(
            outcome.LintError, match=r"0002_second\.py: alembic upgrade --sql 0001:0002 failed"
        ):
            revisions.check(root)

    def test_without_alembic_ini_it_says_so(self, root: Path) -> None:
        (root / "alembic.ini").unlink()
        with pytest.raises(outcome.LintError, match=r"alembic\.ini is missing"):
            revisions.check(root)

    def test_the_table_of_alembic_is_left_out_and_no_line_moves(self) -> None:
        sql = (
            "BEGIN;\n\nCREATE TABLE alembic_version (\n    version_num VARCHAR(32) NOT NULL\n);\n"
            "-- two\nSELECT 'ä';\nINSERT INTO alembic_version (version_num) VALUES ('1');\nCOMMIT;\n"
        )
        left = revisions.without_version_table(sql)
        assert left.split() == ["BEGIN;", "--", "two", "SELECT", "'ä';", "COMMIT;"]
        assert left.splitlines().index("COMMIT;") == sql.splitlines().index("COMMIT;")


class TestPglast:
    def test_sound_functions_pass(self, root: Path) -> None:
        assert functions.check(root) == outcome.Outcome(checked="2 function files")

    @pytest.mark.parametrize(
        ("rule", "line", "sound", "defect"),
        [
            ("syntax", 3, "RETURNS text", "RETURNZ text"),
            ("body-syntax", 9, "RETURN v_thing.name;", "RETURN v_thing.name"),
            ("body-syntax", 9, "INTO v_thing FROM", "INTO v_thing FORM"),
            ("search-path", 2, "SET search_path = eav, pg_temp\n", ""),
            ("search-path", 2, "eav, pg_temp", "eav"),
            ("search-path", 2, "SET search_path = eav, pg_temp", "SET search_path FROM CURRENT"),
            ("comment-missing", 2, "COMMENT ON FUNCTION eav.thing_name", "COMMENT ON FUNCTION eav.other"),
            ("comment-missing", 2, "'The name of one thing; null if there is none.'", "NULL"),
            ("revoke-missing", 2, "FROM PUBLIC", "FROM eav_app"),
            (
                "revoke-missing",
                2,
                "REVOKE ALL ON FUNCTION eav.thing_name",
                "REVOKE ALL ON FUNCTION eav.other",
            ),
            ("p-prefix", 2, "p_id", "id"),
            ("v-prefix", 10, "v_thing", "thing"),
            ("file-name", 2, "eav.thing_name", "eav.thing_nam"),
            ("language", 2, "LANGUAGE plpgsql", "LANGUAGE plpython3u"),
            ("one-function", 1, FUNCTION, FUNCTION + "CREATE FUNCTION eav.b() RETURNS int RETURN 1;"),
            ("dynamic-sql", 13, "RETURN v_thing", "EXECUTE v_thing.name; RETURN v_thing"),
            ("dynamic-sql", 13, "RETURN v_thing", "EXECUTE 'DROP ROLE ' || v_thing.name; RETURN v_thing"),
            (
                "dynamic-sql",
                13,
                "RETURN v_thing",
                "EXECUTE format('SELECT %s', v_thing.name); RETURN v_thing",
            ),
            ("dynamic-sql", 13, "RETURN v_thing", "EXECUTE format(v_thing.name, 1); RETURN v_thing"),
        ],
    )
    def test_a_defect_is_found(
        self, root: Path, plant: Plant, rule: str, line: int, sound: str, defect: str
    ) -> None:
        plant(THING_NAME, sound, defect)
        found = [finding for finding in functions.check(root).findings if finding.rule == rule]
        assert found
        assert found[0].path == THING_NAME
        if rule != "body-syntax":  # where exactly it stands, pglast does not always say
            assert found[0].line == line

    @pytest.mark.parametrize(
        "statement",
        [
            "EXECUTE 'SELECT 1'",
            "EXECUTE 'SELECT ' || '1'",
            "EXECUTE format('SELECT %I, %2$L, 100 %%', 'a', p_id)",
            "EXECUTE format('DROP TABLE %s', p_id::regclass)",
            "EXECUTE format('SET LOCAL work_mem = %s', p_id)",
            "EXECUTE format('ALTER ROLE %I %s', 'a', CASE WHEN true THEN 'LOGIN' ELSE 'NOLOGIN' END)",
            "EXECUTE 'DROP ROLE ' || quote_ident(v_thing.name)",
        ],
    )
    def test_dynamic_sql_that_quotes_passes(self, root: Path, plant: Plant, statement: str) -> None:
        plant(THING_NAME, "RETURN v_thing", f"{statement};\n    RETURN v_thing")
        assert functions.check(root).findings == ()

    @pytest.mark.parametrize(
        ("rule", "sound", "defect"),
        [
            ("unqualified", "FROM eav.things", "FROM things"),
            ("unqualified", "eav.thing_name(id)", "thing_name(id)"),
            ("commit-as-definer", "LANGUAGE plpgsql", "LANGUAGE plpgsql SECURITY DEFINER"),
            ("commit-with-set", "LANGUAGE plpgsql", "LANGUAGE plpgsql SET search_path = eav, pg_temp"),
            ("search-path", "COMMIT;", "NULL;"),
        ],
    )
    def test_a_procedure_that_commits_has_rules_of_its_own(
        self, root: Path, plant: Plant, rule: str, sound: str, defect: str
    ) -> None:
        plant(MOVE_THINGS, sound, defect)
        assert rules(functions.check(root)) == {rule}

    def test_the_names_of_common_table_expressions_need_no_schema(self, root: Path, plant: Plant) -> None:
        plant(
            MOVE_THINGS,
            "DELETE FROM eav.things WHERE",
            "WITH old AS (SELECT t.id FROM eav.things AS t) "
            "DELETE FROM eav.things WHERE id IN (SELECT o.id FROM old AS o) AND",
        )
        assert functions.check(root).findings == ()

    def test_the_syntax_of_a_body_in_sql_is_read(self, root: Path, plant: Plant) -> None:
        plant(THING_NAME, "LANGUAGE plpgsql", "LANGUAGE sql")
        assert rules(functions.check(root)) == {"body-syntax"}

    def test_a_gap_in_the_versions_is_found(self, root: Path) -> None:
        (root / THING_NAME).rename(root / THING_NAME.replace(".v1.", ".v2."))
        (finding,) = functions.check(root).findings
        assert finding.rule == "version-gap"
        assert "version 1 is missing" in finding.message

    @pytest.mark.parametrize("name", ["eav/a.sql", "a.v1.sql", "eav/A.v1.sql", "eav/a.v0.sql"])
    def test_a_misnamed_file_is_found(self, root: Path, name: str) -> None:
        (root / "sql/functions" / name).write_text(FUNCTION, encoding="utf-8")
        assert rules(functions.check(root)) == {"file-name"}

    def test_one_rule_is_waived_where_it_stands_and_no_other(self, root: Path, plant: Plant) -> None:
        plant(
            THING_NAME,
            "RETURN v_thing",
            "EXECUTE v_thing.name; -- lint: ignore dynamic-sql: why\n    RETURN v_thing",
        )
        assert functions.check(root).findings == ()
        plant(THING_NAME, "ignore dynamic-sql", "ignore v-prefix")
        assert rules(functions.check(root)) == {"dynamic-sql"}

    def test_one_rule_is_waived_in_a_whole_file(self, root: Path, plant: Plant) -> None:
        plant(THING_NAME, "RETURN v_thing", "EXECUTE v_thing.name;\n    RETURN v_thing")
        plant(THING_NAME, "-- The name", "-- lint: ignore-file dynamic-sql: why\n-- The name")
        assert functions.check(root).findings == ()

    def test_a_constant_may_be_named_c(self, root: Path, plant: Plant) -> None:
        plant(THING_NAME, "BEGIN", "    c_most CONSTANT integer := 1;\nBEGIN")
        assert functions.check(root).findings == ()
        plant(THING_NAME, "CONSTANT ", "")
        assert rules(functions.check(root)) == {"v-prefix"}

    def test_a_waiver_without_a_reason_is_none(self, root: Path, plant: Plant) -> None:
        plant(THING_NAME, "-- The name of one thing.", "-- lint: ignore p-prefix:")
        plant(THING_NAME, "p_id", "id")
        assert "p-prefix" in rules(functions.check(root))


class TestLanded:
    @pytest.fixture
    def released(self, root: Path) -> Path:
        def git(*arguments: str) -> None:
            who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
            subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)

        git("init", "--quiet")
        git("add", ".")
        git("commit", "--quiet", "--message", "first")
        git("tag", "v0.1.0")
        return root

    def test_a_released_function_may_stay_and_get_a_next_version(self, released: Path) -> None:
        (released / THING_NAME.replace(".v1.", ".v2.")).write_text(FUNCTION, encoding="utf-8")
        assert landed.check(released) == outcome.Outcome(checked="2 files of v0.1.0")

    def test_a_released_function_may_not_change(self, released: Path, plant: Plant) -> None:
        plant(THING_NAME, "STABLE", "VOLATILE")
        (finding,) = landed.check(released).findings
        assert (finding.path, finding.rule) == (THING_NAME, "landed-file-changed")

    def test_a_released_function_may_not_go(self, released: Path) -> None:
        (released / THING_NAME).unlink()
        assert rules(landed.check(released)) == {"landed-file-removed"}

    def test_before_the_first_release_anything_may_change(self, root: Path) -> None:
        assert landed.check(root).checked == "no release yet"


class TestPlpgsqlCheck:
    @pytest.fixture(autouse=True)
    def warm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its alembic is a fork; TestProgram starts one."""

        def run(
            command: list[str], *, cwd: Path, env: dict[str, str], **_: object
        ) -> subprocess.CompletedProcess[str]:
            assert command[:2] == [sys.executable, "-m"]
            return warm.run(*command[2:], env=env, cwd=cwd)

        monkeypatch.setattr(database, "subprocess", SimpleNamespace(run=run))

    @pytest.fixture(autouse=True)
    def extension(self, server_url: str) -> None:
        with psycopg.connect(server_url) as connection:
            found = connection.execute(
                "SELECT FROM pg_available_extensions WHERE name = 'plpgsql_check'"
            ).fetchone()
        if found is None:
            pytest.skip("this server lacks plpgsql_check")

    def test_sound_functions_pass_and_leave_no_database(self, root: Path, server_url: str) -> None:
        assert database.check_on(root, server_url) == outcome.Outcome(checked="2 functions")
        with psycopg.connect(server_url) as connection:
            left = connection.execute("SELECT FROM pg_database WHERE datname LIKE 'lint\\_%'").fetchall()
        assert left == []

    def test_a_column_that_does_not_exist_is_found(self, root: Path, plant: Plant, server_url: str) -> None:
        plant(THING_NAME, "v_thing.name", "v_thing.title")
        (finding,) = database.check_on(root, server_url).findings
        assert (finding.path, finding.line, finding.rule) == (THING_NAME, 13, "plpgsql-check-error")

    def test_a_warning_fails_too_unless_it_is_waived(self, root: Path, plant: Plant, server_url: str) -> None:
        plant(THING_NAME, "BEGIN", "    v_never integer;\nBEGIN")
        (finding,) = database.check_on(root, server_url).findings
        assert (finding.line, finding.rule) == (11, "plpgsql-check-warning")
        plant(
            THING_NAME,
            "v_never integer;",
            "v_never integer; -- lint: ignore plpgsql-check-warning: x",
        )
        assert database.check_on(root, server_url).findings == ()

    def test_text_that_is_executed_is_found_and_waived_under_the_same_rule(
        self, root: Path, plant: Plant, server_url: str
    ) -> None:
        plant(THING_NAME, "RETURN v_thing", "EXECUTE v_thing.name;\n    RETURN v_thing")
        plant(THING_NAME, "STABLE", "VOLATILE")
        assert "dynamic-sql" in rules(database.check_on(root, server_url))
        plant(THING_NAME, "EXECUTE v_thing.name;", "EXECUTE v_thing.name; -- lint: ignore dynamic-sql: why")
        assert "dynamic-sql" not in rules(database.check_on(root, server_url))

    def test_a_trigger_function_is_checked_against_its_table(
        self, root: Path, plant: Plant, server_url: str
    ) -> None:
        trigger = (
            FUNCTION.replace("thing_name(p_id bigint)", "touch()")
            .replace("thing_name(bigint)", "touch()")
            .replace("RETURNS text", "RETURNS trigger")
            .replace("p_id", "new.id")
            .replace("RETURN v_thing.name", "new.no_such_column := v_thing.name;\n    RETURN new")
        )
        (root / "sql/functions/eav/touch.v1.sql").write_text(trigger, encoding="utf-8")
        result = database.check_on(root, server_url)
        assert rules(result) == {"trigger-unused"}
        waiver = "-- lint: ignore-file trigger-unused: a job makes the trigger\n"
        (root / "sql/functions/eav/touch.v1.sql").write_text(waiver + trigger, encoding="utf-8")
        assert rules(database.check_on(root, server_url)) == set()
        (root / "sql/functions/eav/touch.v1.sql").write_text(trigger, encoding="utf-8")
        plant(
            "migrations/versions/0002_second.py",
            ADD_COLUMN,
            "CREATE TRIGGER t BEFORE INSERT ON eav.things FOR EACH ROW EXECUTE FUNCTION eav.touch()",
        )
        result = database.check_on(root, server_url)
        assert rules(result) == {"plpgsql-check-error"}
        assert "no_such_column" in result.findings[0].message

    def test_a_migration_that_fails_is_one_line(self, root: Path, plant: Plant, server_url: str) -> None:
        plant("migrations/versions/0002_second.py", "ADD COLUMN note text", "ADD COLUMN name text")
        with pytest.raises(outcome.LintError, match=r"alembic upgrade head failed: .*already exists"):
            database.check_on(root, server_url)


class TestProgram:
    def test_every_check_runs_though_the_first_fails(
        self, root: Path, plant: Plant, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plant("sql/queries/operational/thing.sql", "WHERE", "where")
        plant(THING_NAME, "p_id", "id")
        (root / "alembic.ini").unlink()
        status = program.main(["--root", str(root), "sqlfluff", "squawk", "pglast", "landed"])
        printed = capsys.readouterr().out
        assert status == 1
        assert "thing.sql:3: capitalisation.keywords: " in printed
        assert "squawk: FAILED to run: alembic.ini is missing" in printed
        assert f"{THING_NAME}:2: p-prefix: " in printed
        assert "landed: ok" in printed

    def test_json_is_one_object(self, root: Path, plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
        plant(THING_NAME, "p_id", "id")
        status = program.main(["--root", str(root), "--json", "pglast", "landed"])
        report = json.loads(capsys.readouterr().out)
        assert (status, report["ok"]) == (1, False)
        assert [(check["name"], check["failed"]) for check in report["checks"]] == [
            ("pglast", True),
            ("landed", False),
        ]
        assert report["checks"][0]["findings"][0] == {
            "path": THING_NAME,
            "line": 2,
            "rule": "p-prefix",
            "message": "argument 1 is named id; arguments are named p_…",
        }

    def test_nothing_found_is_exit_code_0(self, root: Path) -> None:
        assert program.main(["--root", str(root), "pglast", "squawk"]) == 0

    def test_a_defect_of_a_check_fails_it_and_no_other(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def broken(_root: Path) -> outcome.Outcome:
            raise KeyError("x")

        monkeypatch.setitem(program.CHECKS, "sqlfluff", broken)
        assert program.main(["--root", str(root), "sqlfluff", "landed"]) == 1
        printed = capsys.readouterr().out
        assert "sqlfluff: FAILED to run: the check itself failed, KeyError" in printed
        assert "landed: ok" in printed

    def test_a_check_that_does_not_exist_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            program.main(["squak"])
        assert stopped.value.code == 2
        assert "no such check: squak" in capsys.readouterr().err

    def test_a_skipped_check_says_why(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        skipped = outcome.Outcome(checked="nothing", skipped="the server lacks it")
        monkeypatch.setitem(program.CHECKS, "landed", lambda _root: skipped)
        assert program.main(["--root", str(root), "landed"]) == 0
        assert "landed: SKIPPED: the server lacks it" in capsys.readouterr().out

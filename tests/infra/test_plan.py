"""The offline plan and its command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from rich.console import Console

from infra import cli, plan
from infra.errors import SettingsError
from tests.infra.conftest import STACKS, graph_of

if TYPE_CHECKING:
    from infra.graph import Graph

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Found:
    """As infra.policies.Finding."""

    rule: str
    severity: Literal["mandatory", "advisory"]
    resource: str
    text: str
    excepted: str | None


MANDATORY = Found("encrypted", "mandatory", "items/dynamodb.Table/items", "has no key", None)
ADVISORY = Found("tidy", "advisory", "items/dynamodb.Table/items", "could be tidier", None)
EXCEPTED = replace(MANDATORY, rule="public", excepted="meant to be")


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as they were recorded for other tests, and no finding."""
    from infra.graph import load_graph as load

    def load_graph(stack: str, root: Path = ROOT) -> Graph:
        return graph_of(stack) if stack in STACKS else load(stack, root)

    monkeypatch.setattr(plan, "load_graph", load_graph)
    find(monkeypatch)


def find(monkeypatch: pytest.MonkeyPatch, *findings: Found) -> None:
    monkeypatch.setattr("infra.policies.check", lambda graph: list(findings))


def shown(found: plan.Plan) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    plan.show(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# -- exit codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "code"),
    [((), 0), ((ADVISORY,), 0), ((EXCEPTED,), 0), ((MANDATORY,), 3), ((EXCEPTED, ADVISORY, MANDATORY), 3)],
)
def test_only_a_mandatory_finding_without_an_exception_fails(
    findings: tuple[Found, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find(monkeypatch, *findings)
    assert cli.main(["plan", "dev", "--no-picture"]) == code
    out = capsys.readouterr().out
    for one in findings:
        assert one.rule in out
        assert one.text in out
        assert (one.excepted or "") in out


def test_a_stack_without_a_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "qa", "--no-picture"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err == "python -m infra plan: Pulumi.qa.yaml does not exist: the stacks are dev, prod, staging\n"
    )


def test_each_mistake_in_the_settings_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(stack: str, root: Path) -> Graph:
        raise SettingsError("Pulumi.dev.yaml: one\nPulumi.dev.yaml: two")

    monkeypatch.setattr(plan, "load_graph", broken)
    assert cli.main(["plan", "dev", "--no-picture"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "python -m infra plan: Pulumi.dev.yaml: one",
        "python -m infra plan: Pulumi.dev.yaml: two",
    ]


# -- what it says --------------------------------------------------------------------------------------------


def test_the_tables_say_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, EXCEPTED, ADVISORY, MANDATORY)
    text = shown(plan.make("prod"))
    for component in ("network", "postgres", "warehouse", "archiver"):
        assert component in text
    assert "rds.Instance 3" in text
    assert "4 × ra3.4xlarge" in text
    assert "prices of 2026-11 in eu-central-1" in text
    assert text.index("has no key") < text.index("could be tidier") < text.index("meant to be")
    assert "1 mandatory, 1 advisory, 1 excepted" in text


def test_more_than_the_budget_is_said() -> None:
    found = plan.make("dev")
    assert "within cost.budget_usd" in shown(found)
    settings = found.graph.settings
    poor = settings.model_copy(update={"cost": settings.cost.model_copy(update={"budget_usd": 10})})
    assert "more than cost.budget_usd: 10 in Pulumi.dev.yaml" in shown(
        replace(found, graph=replace(found.graph, settings=poor))
    )


def test_json_has_everything_in_one_order(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, MANDATORY)
    stack = graph.settings.stack
    found = plan.as_json(plan.make(stack))
    assert len(found["resources"]) == sum(one.custom for one in graph)
    assert sum(sum(kinds.values()) for kinds in found["counts"].values()) == len(found["resources"])
    assert found["cost"]["month"] == pytest.approx(sum(found["cost"]["components"].values()), abs=0.1)
    assert found["findings"][0]["rule"] == "encrypted"
    # Resources are registered in the order in which their inputs become known, which is another each time.
    turned = replace(graph, resources=dict(reversed(graph.resources.items())))
    monkeypatch.setattr(plan, "load_graph", lambda stack, root: turned)
    assert json.dumps(plan.as_json(plan.make(stack))) == json.dumps(found)


def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "dev", "--json", "--no-picture"]) == 0
    assert json.loads(capsys.readouterr().out)["stack"] == "dev"


def test_the_picture_is_drawn_beside(tmp_path: Path) -> None:
    found = plan.make("dev", tmp_path / "new")
    assert [path.name for path in found.pictures] == ["architecture-dev.svg", "architecture-dev.png"]
    assert all(path.stat().st_size > 10_000 for path in found.pictures)
    assert "architecture-dev.svg" in shown(found)


def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["plan", "dev", "--out", str(tmp_path / "file" / "below")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# -- two stacks ----------------------------------------------------------------------------------------------


def test_a_stack_is_no_other_than_itself() -> None:
    found = plan.make("dev", other="dev").difference
    assert found is not None
    assert (found.settings, found.gone, found.new, found.usd) == ({}, {}, {}, {})


def test_the_difference_is_the_same_from_both_sides() -> None:
    there, back = plan.make("prod", other="dev").difference, plan.make("dev", other="prod").difference
    assert there is not None
    assert back is not None
    assert there.gone == back.new
    assert there.new == back.gone
    assert there.settings == {key: pair[::-1] for key, pair in back.settings.items()}
    assert there.settings["postgres.replicas"] == (2, 0)
    # Nodes mean nothing to a serverless warehouse, units nothing to a cluster, nor hours to a stack that never rests.
    assert there.settings["warehouse.nodes"] == (4, None)
    assert there.settings["warehouse.base_rpu"] == (None, 8)
    assert there.settings["cost.rest_from"] == (None, "20:00")
    assert "replica-2" in there.gone["postgres rds.Instance"]
    assert there.new["warehouse redshiftserverless.Workgroup"]
    assert there.usd["postgres"][0] > there.usd["postgres"][1]


def test_the_difference_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "prod", "--diff", "dev", "--no-picture"]) == 0
    out = capsys.readouterr().out
    for words in ("Settings: prod → dev", "postgres.replicas", "Only in prod", "Only in dev", "replica-2"):
        assert words in out
    assert cli.main(["plan", "prod", "--diff", "dev", "--no-picture", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["difference"]
    assert found["stack"] == "dev"
    assert found["settings"]["postgres.multi_az"] == [True, False]


# -- the command line ----------------------------------------------------------------------------------------


def test_help_has_a_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert cli.main([]) == 2


def test_a_command_that_does_not_exist_has_a_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["paln"]) == 2
    assert capsys.readouterr().err == "python -m infra: no command paln: did you mean plan?\n"


def test_commands_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, infra.cli; infra.cli.main(['--help']); print('pulumi' in sys.modules, 'boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m infra {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("redirect", "code", "said"),
    [
        ("| true", 141, ""),
        (">&-", 0, ""),
        ("> /dev/full", 1, "python -m infra plan: [Errno 28] No space left on device"),
    ],
)
def test_whatever_becomes_of_the_output_there_is_no_traceback(redirect: str, code: int, said: str) -> None:
    # The reader is gone before there is anything to read.
    command = f"{{ sleep 0.1; {sys.executable} -m infra plan dev --no-picture; }} {redirect}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (code, said)


def test_steps_are_said_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (False, True):
        say = plan._Steps(terminal)
        say("drawing")
        say.end()
        assert ("==> drawing" in capsys.readouterr().err) == terminal

"""The benchmark's machinery: a tiny run that is real, and everything that is made of its result. Never its speed."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import docs, report
from bench.__main__ import main, millions
from bench.curves import ENTITY_SIZE, HISTORY_SIZE, PANELS, conclusions, exponent, merged, panels_of, sizes_of
from bench.load import SLOTS, functions, tenant_slots
from bench.model import Figure, Line, at_least, at_most, judge
from bench.run import completed
from bench.sizes import FULL, QUICK, check_disk
from bench.sustained import METRICS
from bench.sustained import judge as judge_metric
from bench.timing import percentile
from local.errors import LocalError
from tests.conftest import Database

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--quick",
    "--rounds",
    "2",
    "--set",
    "staged=2000",
    "--set",
    "staged_small=1000",
    "--set",
    "seconds=0.3",
]
TINY += ["--set", "batch=500"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real run of a row at a tiny size, by the command."""
    path = tmp_path_factory.mktemp("bench") / "table.json"
    assert main(["table", *TINY, "--only", "flush", "--output", str(path)]) == 0
    assert "<svg" in path.with_suffix(".svg").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.cluster
class TestRun:
    def test_the_json_says_where_and_how_it_was_measured(self, result: dict[str, Any]) -> None:
        about = result["about"]
        assert about["settings"]["fsync"] == about["settings"]["full_page_writes"] == "on"
        assert about["settings"]["max_wal_size"] == "8GB"
        assert about["sizes"]["staged"] == 2000
        assert (about["rounds"], about["quick"]) == (2, True)
        assert {"date", "cpu", "cores", "postgresql", "commit"} <= about.keys()

    def test_every_line_has_a_verdict_and_every_figure_its_rounds(self, result: dict[str, Any]) -> None:
        assert [row["name"] for row in result["rows"]] == ["flush"]
        for row in result["rows"]:
            assert "failed" not in row, row
            assert row["state"]
            assert row["lines"]
            for figure in row["figures"].values():
                assert len(figure["rounds"]) == 2
                assert figure["min"] <= figure["median"] <= figure["max"]
            for line in row["lines"]:
                assert line["verdict"] in ("met", "missed", "for information"), line
        flush = result["rows"][0]
        assert {"reference, one flusher", "ours, one flusher", "ours, two flushers"} <= flush[
            "figures"
        ].keys()
        # Each flush and each plain copy began with a checkpoint of its own: 11 a round.
        assert flush["checkpoints"] >= 2 * 11

    def test_the_table_shows_each_line_and_the_docs_are_made_of_it(
        self, result: dict[str, Any], tmp_path: Path
    ) -> None:
        source = tmp_path / "results"
        source.mkdir()
        (source / "table.json").write_text(json.dumps(result), encoding="utf-8")
        document = tmp_path / "benchmarks.md"
        shutil.copy(ROOT / "docs/benchmarks.md", document)
        before = document.read_text(encoding="utf-8")
        written = docs.write_docs(source, document)
        after = document.read_text(encoding="utf-8")
        assert after != before
        assert before.split("<!-- table")[0] == after.split("<!-- table")[0]
        for row in report.cells(result):
            assert row[0] in after
        assert "A quick run" in after
        assert {path.name for path in written} == {"table.json", "table.svg", "benchmarks.md"}
        assert "<svg" in (tmp_path / "benchmarks/table.svg").read_text(encoding="utf-8")
        docs.write_docs(source, document)
        assert document.read_text(encoding="utf-8") == after

    def test_rows_of_an_earlier_table_are_kept_where_it_was_measured_alike(
        self, result: dict[str, Any]
    ) -> None:
        about = result["about"]
        (flush,) = result["rows"]
        earlier = {
            "about": about | {"date": "2026-01-01T00:00:00+00:00", "commit": "0123456789ab"},
            "rows": [flush | {"title": "old"}, flush | {"name": "size"}],
        }
        both = completed(result, earlier)
        assert [(row["name"], row["title"]) for row in both["rows"]] == [
            ("flush", flush["title"]),
            ("size", flush["title"]),
        ]
        page = report.markdown(both)
        assert page.count("Measured 2026-01-01T00:00:00+00:00 at commit 0123456789ab.") == 1
        # Kept once more, it still says when it was measured.
        again = completed(result, both)
        assert again["rows"][1]["measured"]["commit"] == "0123456789ab"
        with pytest.raises(LocalError, match="had another cpu"):
            completed(result, earlier | {"about": about | {"cpu": "abacus"}})

    def test_an_interrupted_run_leaves_no_server_and_no_files(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        folder = Path(f"/tmp/bench-test-{tmp_path.name}-{time.monotonic_ns()}")  # noqa: S108
        folder.mkdir(mode=0o755)
        folder.chmod(0o777)
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *TINY, "--set", "staged=100000", "--only", "flush"],
            cwd=ROOT,
            env={"TMPDIR": str(folder), "PATH": "/usr/bin:/bin"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            assert any("making the database" in line for line in process.stderr)
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[1]
            assert process.returncode == 130
            assert rest.splitlines()[-1] == "python -m bench: interrupted, nothing is left behind"
            assert list(folder.iterdir()) == []
            assert not [
                each.pid
                for each in psutil.process_iter(["cmdline"])
                if str(folder) in str(each.info["cmdline"])
            ]
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--only", "flash"], "there is no row flash"),
            (["--set", "stage=1"], "there is no size 'stage'"),
            (["--set", "staged=many"], "'many' is no number"),
            (["--set", "staged=0"], "staged must be more than 0"),
            (["--rounds", "0"], "--rounds must be 1 or more"),
            (["--rows", "10"], "--rows must be 1000 or more"),
            (["sustained", "--minutes", "0"], "--minutes and --every must be more than 0"),
            (["docs", "--from", "/nonexistent"], "holds no results"),
            (["--set", "history=10000000000000"], "choose another folder with TMPDIR"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line

    def test_sizes_in_millions(self) -> None:
        assert millions("50,1,10") == (1_000_000, 10_000_000, 50_000_000)
        assert millions("0.2") == (200_000,)


class TestJudging:
    def test_a_bar_is_held_against_the_medians(self) -> None:
        figures = {"ours": Figure([300.0, 100.0, 200.0]), "reference": Figure([20.0, 10.0, 30.0])}
        line = judge(Line("flush", "ours", "rows/s", "reference", bar=at_least(10)), figures)
        assert (line["value"], line["verdict"], line["bar"], line["margin"]) == (10.0, "met", "≥ 10 ×", 1.0)
        line = judge(Line("flush", "ours", "rows/s", "reference", bar=at_least(10.1)), figures)
        assert line["verdict"] == "missed"

    def test_at_most_and_by_itself(self) -> None:
        figures = {"ours": Figure([2.0]), "reference": Figure([100.0])}
        line = judge(Line("filter", "ours", "ms", "reference", bar=at_most(1 / 50)), figures)
        assert (line["value_text"], line["verdict"], line["bar"]) == ("1/50", "met", "≤ 1/50")
        line = judge(Line("filter", "ours", "ms", bar=at_most(1)), figures)
        assert (line["value_text"], line["verdict"], line["bar"]) == ("2 ms", "missed", "≤ 1 ms")

    def test_a_figure_that_is_not_there_is_said(self) -> None:
        line = judge(Line("filter", "ours", "ms", "reference", bar=at_most(1)), {"ours": Figure([1.0])})
        assert line["verdict"] == "not measured"
        assert "reference" in line["why"]

    def test_percentiles_are_of_the_values_themselves(self) -> None:
        assert [percentile(range(1, 11), share) for share in (0.0, 0.5, 0.9, 0.99, 1.0)] == [1, 5, 9, 10, 10]


class TestSlopes:
    METRIC = next(metric for metric in METRICS if metric.name == "server_private_mib")

    def verdict(self, values: list[float]) -> str:
        samples = [{"seconds": 5.0 * n, self.METRIC.name: value} for n, value in enumerate(values)]
        return str(judge_metric(self.METRIC, samples)["verdict"])

    def test_a_leak_is_seen_through_noise_and_noise_is_none(self) -> None:
        noise = [7 * math.sin(n * 12.9898) for n in range(200)]
        assert self.verdict([200 + n * 0.5 + noise[n] for n in range(200)]) == "grows"
        assert self.verdict([200 + noise[n] for n in range(200)]) == "steady"
        assert self.verdict([200 + 100 * (n % 20) for n in range(200)]) == "steady"

    def test_what_settles_after_the_beginning_is_steady(self) -> None:
        assert self.verdict([min(300.0, 20.0 * n) for n in range(200)]) == "steady"

    def test_a_few_samples_say_nothing(self) -> None:
        assert self.verdict([1.0, 2.0, 3.0]) == "too short to tell"

    def test_a_saw_that_has_not_been_cut_yet_is_no_leak(self) -> None:
        metric = next(metric for metric in METRICS if metric.name == "checkpoint_log_mib")
        samples = [{"seconds": 5.0 * n, metric.name: 2.0 + n} for n in range(100)]
        assert judge_metric(metric, samples)["verdict"] == "grows until it is pruned"
        samples = [{"seconds": 50.0 * n, metric.name: 2.0 + n} for n in range(100)]
        assert judge_metric(metric, samples)["verdict"] == "grows"


class TestCurves:
    def test_the_power_of_the_size(self) -> None:
        points = [{"size": size, "median": 5 * size**0.5} for size in (1e6, 1e7, 5e7)]
        assert exponent(points) == pytest.approx(0.5)
        assert exponent(points[:1]) is None

    def test_what_they_say_about_the_design_load(self) -> None:
        points = [{"size": size, "median": 2.0} for size in (1e6, 5e7)]
        panel = {
            "title": "flush into the partition",
            "unit": "µs a row",
            "size": "rows in the partition",
            "series": {"ours": points},
        }
        text = " ".join(conclusions([panel]))
        assert "26,000 million in a month (520 times the largest measured)" in text
        assert "36 million in an hour (measured)" in text
        assert "stores 500,000 rows/s" in text

    def test_points_of_earlier_results_are_kept(self) -> None:
        figures = {"ours, full partition": {"rounds": [1e5, 2e5, 5e5]}}
        table = {
            "about": {"sizes": {"history": 50, "entities": 2}},
            "rows": [{"name": "filled", "figures": figures}, {"name": "flush", "figures": figures}],
        }
        point = {"size": 10, "median": 3.0, "min": 3.0, "max": 3.0}

        def curves(point: dict[str, float], titles: set[str]) -> dict[str, Any]:
            return {
                "panels": [
                    {"title": title, "unit": unit, "size": of, "series": {name: [point] for name in series}}
                    for title, unit, of, series in PANELS
                    if title in titles
                ]
            }

        flush, *others = [title for title, _, of, _ in PANELS if of == HISTORY_SIZE]
        results = [curves(point | {"median": 4.0}, {flush}), table, curves(point, {flush, *others})]
        panels = merged([panels_of(result) for result in results])
        points = next(panel for panel in panels if panel["title"] == flush)["series"]["ours"]
        assert [(one["size"], one["median"]) for one in points] == [(10, 4.0), (50, 5.0)]
        # Of 50 there is but one series: it is measured again.
        assert sizes_of(panels, HISTORY_SIZE) == {10}
        assert sizes_of(panels, ENTITY_SIZE) == set()

    @pytest.mark.parametrize(
        "text",
        ["{", "[]", '{"about": {}}', '{"about": {}, "rows": 5}', '{"about": {"quick": true}, "rows": []}'],
    )
    def test_a_file_that_is_no_result_is_refused(
        self, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "some.json"
        path.write_text(text, encoding="utf-8")
        assert main(["curves", "--with", str(path)]) != 0
        assert str(path) in capsys.readouterr().err


class TestLoad:
    def test_tenants_are_skewed(self) -> None:
        counts = Counter(tenant_slots())
        assert sum(counts.values()) == SLOTS
        assert 0.38 < counts[1] / SLOTS < 0.42
        assert sorted(counts) == list(range(1, 21))
        ordered = [counts[tenant] for tenant in range(1, 21)]
        assert all(first >= second - 1 for first, second in itertools.pairwise(ordered))


class TestSizes:
    def test_the_need_for_disk_is_said_and_checked(self, tmp_path: Path) -> None:
        assert "needs about 1.0 GiB of disk" in check_disk(2**30, str(tmp_path))
        with pytest.raises(LocalError, match="choose another folder with TMPDIR"):
            check_disk(2**60, str(tmp_path))
        assert QUICK.disk_bytes() < 3 * 2**30 < FULL.disk_bytes() < 40 * 2**30


class TestDocument:
    def test_the_page_is_what_its_json_files_make_it(self, tmp_path: Path) -> None:
        """Nobody edited a figure, and nobody forgot to write the page anew."""
        source = ROOT / "docs/benchmarks"
        document = tmp_path / "benchmarks.md"
        shutil.copy(ROOT / "docs/benchmarks.md", document)
        docs.write_docs(source, document)
        assert document.read_text(encoding="utf-8") == (ROOT / "docs/benchmarks.md").read_text(
            encoding="utf-8"
        )

    def test_markers_that_are_gone_are_one_line(self, tmp_path: Path) -> None:
        document = tmp_path / "benchmarks.md"
        document.write_text("nothing\n", encoding="utf-8")
        with pytest.raises(LocalError, match="the markers <!-- table: generated -->"):
            report.fill_in(document, "table", "text")


class TestReference:
    def test_it_has_the_partitions_and_indexes_that_it_is_measured_with(self, database: Database) -> None:
        with database.session() as connection:
            connection.execute(functions(1000).encode())
            for part in ("flush", "hot"):
                connection.execute((ROOT / f"bench/reference/{part}.sql").read_bytes())
        partitions = "SELECT count(*) FROM pg_partition_tree(%s) WHERE isleaf"
        assert database.one(partitions, "reference.entity_jsonb") == 100
        assert database.one(partitions, "reference.entity_values_ts") == 7
        indexes = [
            definition.split(" USING ")[1]
            for (definition,) in database.all(
                "SELECT indexdef FROM pg_indexes WHERE schemaname = 'reference'"
                " AND tablename IN ('entity_jsonb', 'entity_values_ts') ORDER BY 1"
            )
        ]
        assert sorted(indexes) == [
            "brin (ingested_at)",
            "btree (entity_id, tenant_id)",
            "btree (tenant_id, attribute_id, ingested_at)",
            "btree (tenant_id, entity_id, attribute_id, ingested_at)",
            "gin (hot_attrs jsonb_path_ops)",
        ]

    def test_its_upserts_keep_other_keys_and_take_the_last_that_came(self, database: Database) -> None:
        with database.session() as connection:
            connection.execute(functions(1000).encode())
            for part in ("flush", "hot"):
                connection.execute((ROOT / f"bench/reference/{part}.sql").read_bytes())
            connection.execute('SELECT reference.upsert_hot_attrs(1, 7, \'{"a": 2, "b": 1}\')')
            connection.execute("SELECT reference.upsert_hot_attrs(1, 7, '{\"a\": 1}')")
            ((count,),) = connection.execute(
                "SELECT reference.upsert_hot_attrs_in_bulk(1, 100, false)"
            ).fetchall()
        assert count == 100
        query = "SELECT hot_attrs FROM reference.entity_jsonb WHERE entity_id = 7 AND tenant_id = 1"
        hot = database.one(query)
        assert hot.keys() == {"a", "b", "cpu.percent"}
        assert (hot["a"], hot["b"]) == (1, 1)


class TestLoadInTheServer:
    def test_it_is_the_same_rows_every_time_and_every_entity_once(self, database: Database) -> None:
        with database.session() as connection:
            connection.execute(functions(1000).encode())
        query = (
            "SELECT count(*), count(DISTINCT entity_id), count(DISTINCT tenant_id),"
            " min(attribute_id), max(attribute_id),"
            " count(*) FILTER (WHERE tenant_id <> bench.tenant_of(entity_id)),"
            " count(*) FILTER (WHERE (attribute_id - 1) / 1000 + 1 <> tenant_id)"
            " FROM bench.load(1, 1000, '2026-01-01', '1 ms')"
        )
        (first,) = database.all(query)
        assert first[:3] == (1000, 1000, 20)
        assert 1 <= first[3] <= first[4] <= 20_000
        assert first[5:] == (0, 0)
        assert database.all(query) == [first]

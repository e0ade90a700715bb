from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import certifi
import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import default_environment
from packaging.utils import canonicalize_name

from infra import bundle, program, publisher
from infra.bundle import ARCHIVER, LOCK, ROOT, Bundle, closure, locked, pack
from infra.errors import InfraError
from infra.graph import read_config
from infra.settings import load

RUNTIME_LOCK = (ROOT / LOCK).read_text()
PINNED = {
    canonicalize_name(line.partition("==")[0]): line
    for line in RUNTIME_LOCK.splitlines()
    if "==" in line and not line.startswith((" ", "#"))
}


@pytest.fixture
def small(tmp_path: Path) -> Bundle:
    """Of a repository with one folder; it needs one package, which is compiled."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").touch()
    (tmp_path / "app/main.py").write_text("import wrapt\n\ndef handler(event, context): ...\n")
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / LOCK, tmp_path / LOCK)
    return Bundle("small", ("app",), ("wrapt",), "app.main.handler", root=tmp_path)


def made(of: Bundle) -> None:
    """The archive as it is built, but for the packages."""
    of.path.parent.mkdir(parents=True)
    pack(of.path, of.sources(), of.digest())


# -- the same bytes ------------------------------------------------------------------------------------------


def test_an_archive_is_the_same_whatever_the_files_times_rights_and_order(tmp_path: Path) -> None:
    found = []
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        files = {}
        for name in random.Random(attempt).sample("abcdef", 6):
            path = folder / name
            path.write_text(name * 100)
            path.chmod(0o600 + attempt)
            os.utime(path, (attempt * 1e9, attempt * 1e9))
            files[f"code/{name}"] = path
        pack(tmp_path / f"{attempt}.zip", files, "digest")
        found.append((tmp_path / f"{attempt}.zip").read_bytes())
    assert found[0] == found[1]


def test_lambda_may_read_every_file(small: Bundle) -> None:
    made(small)
    with zipfile.ZipFile(small.path) as archive:
        assert {one.external_attr >> 16 & 0o777 for one in archive.infolist()} == {0o444}


def test_only_sources_are_in_it(small: Bundle) -> None:
    cache = small.root / "app/__pycache__"
    cache.mkdir()
    (cache / "main.cpython-311.pyc").write_bytes(b"of this machine")
    assert list(small.sources()) == ["app/__init__.py", "app/main.py"]


# -- built from these sources --------------------------------------------------------------------------------


def test_one_that_was_built_from_these_sources_is_taken(small: Bundle) -> None:
    made(small)
    small.check()


@pytest.mark.parametrize("change", ["app/main.py", "app/new.py", "requirements/runtime.txt"])
def test_one_that_was_built_from_other_sources_is_refused_in_a_line(small: Bundle, change: str) -> None:
    made(small)
    with (small.root / change).open("a") as file:
        file.write("\n# changed\n")
    with pytest.raises(
        InfraError, match=r"^\.local/bundles/small\.zip was built from other sources: make it"
    ):
        small.check()


def test_a_file_that_is_gone_or_was_renamed_is_a_change(small: Bundle) -> None:
    before = small.digest()
    (small.root / "app/main.py").rename(small.root / "app/other.py")
    renamed = small.digest()
    (small.root / "app/other.py").unlink()
    assert len({before, renamed, small.digest()}) == 3


def test_one_that_is_not_there_or_broken_is_refused_in_a_line(small: Bundle) -> None:
    with pytest.raises(
        InfraError, match=r"^\.local/bundles/small\.zip is not there: make it with `make bundle`$"
    ):
        small.check()
    small.path.parent.mkdir(parents=True)
    small.path.write_text("no archive")
    with pytest.raises(InfraError, match=r"^\.local/bundles/small\.zip cannot be read"):
        small.check()


def test_a_folder_that_there_is_not_is_said(small: Bundle) -> None:
    with pytest.raises(InfraError, match="bundle lost: there is no folder nowhere"):
        Bundle("lost", ("nowhere",), (), "a.b", root=small.root).sources()


def test_pulumi_up_ends_with_those_lines_before_anything_is_declared(
    monkeypatch: pytest.MonkeyPatch, small: Bundle
) -> None:
    monkeypatch.setattr(bundle.check_all, "__defaults__", ((small, small),))
    monkeypatch.setattr(pulumi, "get_stack", lambda: "dev")
    monkeypatch.setattr(program, "settings_of", lambda stack: load(stack, read_config(stack)))
    monkeypatch.setattr(program, "declare", lambda settings: pytest.fail("declared"))
    with pytest.raises(pulumi.RunError) as caught:
        program.main()
    line = ".local/bundles/small.zip is not there: make it with `make bundle`"
    assert str(caught.value) == f"{line}\n{line}"
    made(small)
    monkeypatch.setattr(program, "declare", lambda settings: None)
    program.main()


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str], small: Bundle) -> None:
    with pytest.raises(
        InfraError, match=r"^\.local/bundles/small\.zip is not there: make it with `make bundle`$"
    ):
        bundle.main(["--check"], (small,))
    made(small)
    assert bundle.main([], (small,)) == 0
    assert capsys.readouterr().out == ".local/bundles/small.zip is up to date\n"


# -- packages ------------------------------------------------------------------------------------------------


def test_the_archiver_has_all_that_its_packages_need_and_no_more() -> None:
    found = closure(ARCHIVER.requirements)
    assert found >= {
        "aws-lambda-powertools",
        "aws-xray-sdk",
        "wrapt",
        "boto3",
        "botocore",
        "urllib3",
        "orjson",
    }
    # Of extras that nobody asked for, and of this repository's other parts.
    assert not found & {"pydantic", "redis", "psycopg", "sqlalchemy", "moto", "rich"}


def test_an_extra_brings_its_own() -> None:
    assert closure(["aws-lambda-powertools[tracer]"]) - closure(["aws-lambda-powertools"]) >= {"aws-xray-sdk"}


def test_what_is_not_installed_is_said() -> None:
    with pytest.raises(
        InfraError, match=r"^no-such-thing is not installed: run requirements/install runtime$"
    ):
        closure(["no-such-thing"])


def test_markers_are_those_of_where_the_function_runs() -> None:
    lock = (
        'one==1.0 ; sys_platform == "win32" \\\n    --hash=sha256:aa\n'
        'two==2.0 ; platform_machine == "aarch64" \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n    # via x\n'
        'three==3.0 ; python_version < "3.13" \\\n    --hash=sha256:dd\n'
        "four==4.0 \\\n    --hash=sha256:ee\n"
    )
    assert locked(lock, ["Two", "four"]) == (
        "four==4.0 --hash=sha256:ee\ntwo==2.0 --hash=sha256:bb --hash=sha256:cc\n"
    )
    for name in ("one", "three"):
        with pytest.raises(
            InfraError, match=f"^{name}: not in requirements/runtime.txt; add it to runtime.in"
        ):
            locked(lock, [name])


@given(names=st.sets(st.sampled_from(sorted(set(PINNED) - {"pywin32", "tzdata"}))))
def test_every_entry_of_the_lock_can_be_had_with_its_hashes(names: set[str]) -> None:
    lines = locked(RUNTIME_LOCK, names).splitlines()
    assert [canonicalize_name(line.partition("==")[0]) for line in lines] == sorted(names)
    for line in lines:
        pin, *hashes = line.split(" ")
        assert PINNED[canonicalize_name(pin.partition("==")[0])].startswith(pin)
        assert hashes
        assert all(one.startswith("--hash=sha256:") for one in hashes)


def test_the_versions_are_those_that_the_tests_run_with() -> None:
    for line in locked(RUNTIME_LOCK, closure(ARCHIVER.requirements)).splitlines():
        name, _, version = line.split(" ")[0].partition("==")
        assert metadata.version(name) == version


# -- really ----------------------------------------------------------------------------------------------------

PROBE = """
import importlib, json, sys

class Missing:
    names = set(json.load(sys.stdin))

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, sys.argv[1])
module, _, name = sys.argv[2].rpartition(".")
assert callable(getattr(importlib.import_module(module), name))
import boto3
boto3.client("s3", region_name="eu-central-1")
ours = module.partition(".")[0] + "."
print(json.dumps({one: found.__file__ for one, found in sys.modules.items() if one.startswith(ours)}))
"""


@pytest.mark.parametrize("of", bundle.BUNDLES, ids=lambda of: of.name)
def test_a_handler_is_imported_from_its_archive_with_the_packages_that_are_bundled(
    tmp_path: Path, of: Bundle
) -> None:
    """The sources are packed and unpacked. Packages are those of here, but for all that are not in the bundle."""
    pack(tmp_path / "bundle.zip", of.sources(), "")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    # With what this older Python needs besides.
    bundled = closure(of.requirements, {name: str(text) for name, text in default_environment().items()})
    missing = [
        name
        for name, owners in metadata.packages_distributions().items()
        if not {canonicalize_name(one) for one in owners} & bundled
    ]
    assert {"certifi", "pulumi", "moto"} <= set(missing)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE, str(tmp_path / "unpacked"), of.handler],
        input=json.dumps(missing),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert of.handler.rpartition(".")[0] in files
    assert all(Path(file).is_relative_to(tmp_path / "unpacked") for file in files.values())


def reachable() -> bool:
    """Whether pip reaches an index."""
    asked = [sys.executable, "-m", "pip", "--retries", "0", "--timeout", "5", "index", "versions", "wrapt"]
    return not subprocess.run(asked, capture_output=True, check=False).returncode


def test_packages_are_fetched_for_where_the_function_runs(small: Bundle) -> None:
    try:
        size = bundle.build(small)
    except InfraError:
        if reachable():
            raise
        pytest.skip("no package index is reachable from here")
    assert size == small.path.stat().st_size
    small.check()
    with zipfile.ZipFile(small.path) as archive:
        names = archive.namelist()
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    (compiled,) = [name for name in names if name.endswith(".so")]
    assert compiled.endswith(".cpython-313-aarch64-linux-gnu.so")
    assert {"app/main.py", "wrapt/__init__.py"} <= set(names)
    # What tells of the machine that it was built on.
    assert not [
        name for name in names if name.endswith((".pyc", "/RECORD", "/INSTALLER", "/direct_url.json"))
    ]
    assert not list(small.path.parent.glob("tmp*"))


# -- what AWS publishes --------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Iterator[str]:
    """Address of a folder with certificates, as a server gives it."""
    (tmp_path / "web").mkdir()
    shutil.copy(certifi.where(), tmp_path / "web/good.pem")
    (tmp_path / "web/bad.pem").write_text("<html>moved</html>")
    handler = partial(QuietHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_certificates_are_fetched_and_looked_at(small: Bundle, published: str, tmp_path: Path) -> None:
    def downloads(page: str) -> Bundle:
        return replace(small, downloads={"certificates/ca.pem": f"{published}/{page}"})

    found = bundle._downloaded(downloads("good.pem"), tmp_path)
    assert found["certificates/ca.pem"].read_bytes() == Path(certifi.where()).read_bytes()
    with pytest.raises(InfraError, match="holds no certificates"):
        bundle._downloaded(downloads("bad.pem"), tmp_path)
    with pytest.raises(InfraError, match="cannot fetch"):
        bundle._downloaded(downloads("none.pem"), tmp_path)
    assert downloads("good.pem").digest() != small.digest()


def test_the_publisher_finds_the_certificates_where_they_are_put() -> None:
    assert {f"/var/task/{name}" for name in bundle.FIGURES.downloads} == {publisher.CERTIFICATES}

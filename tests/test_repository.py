"""The commands and files at the root do what they promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]

# Stands for .venv/bin/python: records each call, prints what the real program would, fails where told to.
FAKE_PYTHON = """\
#!/bin/sh
echo "$*" >> calls
case "$*" in
    *"local url"*) echo "postgresql://u@127.0.0.1:5432/eav" ;;
    *"local aws-env"*) echo "export AWS_REGION=us-east-1" ;;
    *pytest*) echo "==== 3 passed in 0.01s ====" ;;
esac
case "$*" in
    *"${FAIL:-nothing fails}"*) exit 3 ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the Makefile whose .venv is complete and fake."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    for name in ("runtime", "dev"):
        shutil.copy(tmp_path / f"requirements/{name}.txt", tmp_path / f".venv/installed-{name}.txt")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/__init__.py").touch()
    return tmp_path


def make(clone: Path, *arguments: str, fail: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    if fail is not None:
        environment["FAIL"] = fail
    return subprocess.run(
        ["make", *arguments],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def calls(clone: Path) -> list[str]:
    return (clone / "calls").read_text(encoding="utf-8").splitlines()


class TestMake:
    def test_make_test_lints_then_tests_and_ends_with_the_summary(self, clone: Path) -> None:
        done = make(clone, "test")
        assert done.returncode == 0, done.stderr
        modules = [call.split()[1] for call in calls(clone)]
        assert modules == ["local", "local", "ruff", "ruff", "mypy", "migrations.lint", "pytest"]
        assert done.stdout.splitlines()[-1] == "==== 3 passed in 0.01s ===="

    @pytest.mark.parametrize("check", ["ruff check", "ruff format", "mypy --strict", "migrations.lint"])
    def test_a_failing_check_fails_make_test_and_keeps_nothing_else_from_running(
        self, clone: Path, check: str
    ) -> None:
        done = make(clone, "test", fail=check)
        assert done.returncode != 0
        assert "the lint failed" in done.stderr
        for program in ("ruff check", "ruff format", "mypy", "migrations.lint", "pytest"):
            assert any(program in call for call in calls(clone)), program

    def test_failing_tests_fail_make_test(self, clone: Path) -> None:
        done = make(clone, "test", fail="pytest")
        assert done.returncode != 0
        assert "the lint failed" not in done.stderr

    def test_without_a_server_s_packages_make_test_stops(self, clone: Path) -> None:
        done = make(clone, "test", fail="local install")
        assert done.returncode != 0
        assert not any("pytest" in call for call in calls(clone))

    def test_make_url_prints_the_url_and_nothing_else(self, clone: Path) -> None:
        assert make(clone, "url").stdout == "postgresql://u@127.0.0.1:5432/eav\n"

    def test_make_aws_env_prints_what_a_shell_evaluates_and_nothing_else(self, clone: Path) -> None:
        assert make(clone, "aws-env").stdout == "export AWS_REGION=us-east-1\n"

    @pytest.mark.parametrize("step", ["local up", "local url", "alembic upgrade head", "local demo"])
    def test_make_up_stops_at_the_first_step_that_fails(self, clone: Path, step: str) -> None:
        steps = ["local up", "local url", "alembic upgrade head", "local demo"]
        assert make(clone, "up", fail=step).returncode != 0
        ran = [call.removeprefix("-m ") for call in calls(clone)]
        assert ran == steps[: steps.index(step) + 1]

    def test_make_alone_lists_the_commands(self, clone: Path) -> None:
        listed = re.findall(r"^ +make ([a-z-]+) ", make(clone).stdout, re.MULTILINE)
        assert {"up", "down", "test", "lint", "bench", "psql", "url", "aws-env", "destroy", "lock"} <= set(
            listed
        )


class TestInstall:
    """requirements/install, which makes .venv."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Path:
        """A copy whose locks are empty, so that nothing is fetched."""
        (tmp_path / "requirements").mkdir()
        shutil.copy(REPOSITORY / "requirements/install", tmp_path / "requirements")
        for name in ("runtime", "infra", "dev"):
            (tmp_path / f"requirements/{name}.txt").touch()
        return tmp_path

    def install(self, folder: Path, which: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": path or os.environ["PATH"]}
        return subprocess.run(
            [folder / "requirements/install", which],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_a_half_made_venv_is_made_again_and_only_a_changed_lock_reinstalled(self, empty: Path) -> None:
        (empty / ".venv/bin").mkdir(parents=True)
        (empty / ".venv/bin/python").symlink_to("/no/such/python")
        first = self.install(empty, "dev")
        assert first.returncode == 0, first.stderr
        assert "making .venv" in first.stdout
        for which in ("dev", "runtime", "infra"):  # the others are parts of dev
            second = self.install(empty, which)
            assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
        (empty / "requirements/runtime.txt").write_text("# changed\n", encoding="utf-8")
        assert "installing" in self.install(empty, "runtime").stdout

    def test_a_python_that_is_too_old_is_one_line(self, empty: Path) -> None:
        programs = empty / "programs"
        programs.mkdir()
        for name in ("sh", "dirname", "cmp", "cut", "mkdir", "flock"):
            found = shutil.which(name)
            if found:
                (programs / name).symlink_to(found)
        old = programs / "python3"
        old.write_text(
            '#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.2" && exit 0\nexit 1\n', encoding="utf-8"
        )
        old.chmod(0o755)
        done = self.install(empty, "runtime", path=str(programs))
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert "Python 3.11 or newer is needed, python3 is 3.9.2" in line

    def test_a_set_that_does_not_exist_is_one_line(self, empty: Path) -> None:
        done = self.install(empty, "devel")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "requirements/install: no such set of packages: devel (runtime, infra or dev)"
        ]


def locked(name: str) -> dict[str, str]:
    """Package to version, of one lock; fails if one is not pinned or has no hash."""
    text = (REPOSITORY / f"requirements/{name}.txt").read_text(encoding="utf-8")
    packages = {}
    for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE):
        if not entry.strip():
            continue
        match = re.match(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+)", entry)
        assert match, entry
        assert "--hash=sha256:" in entry, entry
        packages[match["name"]] = match["version"]
    return packages


class TestLocks:
    def test_every_package_is_pinned_and_hashed(self) -> None:
        assert {"psycopg", "sqlalchemy", "alembic"} <= set(locked("runtime"))
        assert {"pytest", "ruff", "mypy", "squawk-cli"} <= set(locked("dev"))

    def test_the_runtime_is_a_part_of_dev_in_the_same_versions(self) -> None:
        assert locked("runtime").items() <= locked("dev").items()

    @pytest.mark.parametrize("name", ["runtime", "dev"])
    def test_a_lock_names_no_address_and_no_folder(self, name: str) -> None:
        text = (REPOSITORY / f"requirements/{name}.txt").read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"(^|\s)(--index-url|--find-links|/)", text)


class TestWorkflows:
    WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_actions_are_pinned_by_commit_and_say_their_version(self, path: Path) -> None:
        uses = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
        assert uses
        for use in uses:
            if (REPOSITORY / use).is_file():
                continue  # one of our own, in the same commit
            assert re.fullmatch(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", use), use

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_a_workflow_may_only_read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^permissions:\n  contents: read\n(  id-token: write\n)?\n", text, re.MULTILINE)
        # A token that AWS takes for a role writes nothing on GitHub.
        assert set(re.findall(r".*write.*", text)) <= {"  id-token: write", "      id-token: write"}
        assert "pull_request_target" not in text

    @pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
    def test_what_fails_in_a_pipe_fails_the_step(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text)
        if re.search(r"^(?! *(#|-? *if:)).*[\w}] \| ", text, re.MULTILINE):
            assert found["defaults"]["run"]["shell"] == "bash"

    def test_each_role_is_taken_with_a_token_that_is_fresh(self) -> None:
        path = REPOSITORY / ".github/workflows/pulumi.yml"
        steps = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["pulumi"]["steps"]
        runs = [step.get("run", "") for step in steps]
        for index, run in enumerate(runs):
            if re.search(r"pulumi up|checklist .* after|infra image|infra migrate", run):
                assert "ACTIONS_ID_TOKEN_REQUEST_URL" in runs[index - 1]

    def test_the_image_and_the_schema_come_before_the_services(self) -> None:
        path = REPOSITORY / ".github/workflows/pulumi.yml"
        steps = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]["pulumi"]["steps"]
        runs = [step.get("run", "") for step in steps]
        done = [
            next((word for word in ("before", "image", "migrate", "pulumi up", "after") if word in run), None)
            for run in runs
            if "-m infra" in run or "pulumi up" in run
        ]
        assert done == ["before", "image", "migrate", "pulumi up", "after"]
        assert all(
            step["if"] == "inputs.command == 'up'"
            for step in steps
            if re.search(r"infra (image|migrate)", step.get("run", ""))
        )

    def test_what_is_copied_into_the_image_builds_a_new_one(self) -> None:
        text = (REPOSITORY / "jobs/Dockerfile").read_text(encoding="utf-8")
        copied = set(re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE))
        found = yaml.safe_load((REPOSITORY / ".github/workflows/image.yml").read_text(encoding="utf-8"))
        paths = {path.removesuffix("/**") for path in found[True]["push"]["paths"]}
        assert copied <= paths

    def test_each_stack_is_validated_by_a_terraform_that_is_what_it_was(self) -> None:
        found = yaml.safe_load((REPOSITORY / ".github/workflows/infra.yml").read_text(encoding="utf-8"))
        job = found["jobs"]["provider"]
        assert job["strategy"]["matrix"]["stack"] == ["dev", "staging", "prod"]
        runs = [step.get("run", "") for step in job["steps"]]
        (fetched,) = [run for run in runs if "curl" in run]
        assert "sha256sum --check" in fetched
        assert fetched.index("sha256sum") < fetched.index("GITHUB_PATH")
        assert any("infra validate" in run and "--apply" in run for run in runs)

    def test_what_a_stack_is_made_of_has_it_planned_and_deployed(self) -> None:
        found = yaml.safe_load((REPOSITORY / ".github/workflows/infra.yml").read_text(encoding="utf-8"))[True]
        assert found["pull_request"]["paths"] == found["push"]["paths"]
        wanted = {"infra", "archiver", "jobs", "migrations", "sql", "runbooks"}
        assert wanted <= {path.removesuffix("/**") for path in found["push"]["paths"]}

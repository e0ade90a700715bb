"""What operations look at: which server they talk to, and whether what writes runs again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.ecs.models import ecs_backends

from infra.errors import InfraError
from infra.operation import addresses
from tests.conftest import Database
from tests.infra.conftest import graph_of
from tests.infra.running import ACCOUNT, Running, running


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, database: Database) -> Iterator[Running]:
    with running(graph_of("prod"), monkeypatch, database.url) as found:
        yield found


def test_a_tunnel_to_another_instance_is_refused(stack: Running) -> None:
    assert stack.site().ask("SELECT 1") == [(1,)]
    stack.at = frozenset({"10.30.128.7"})
    with pytest.raises(InfraError, match=r"leads to a server at \S+, which is not eav-prod-postgres\."):
        stack.site().ask("SELECT 1")


def test_a_host_without_an_address_is_a_line() -> None:
    assert "127.0.0.1" in addresses("localhost")
    with pytest.raises(InfraError, match=r"^nowhere\.invalid: "):
        addresses("nowhere.invalid")


def test_what_writes_runs_again_when_all_of_it_does(stack: Running) -> None:
    assert stack.site().writers(wanted="running").state == "done"
    services = ecs_backends[ACCOUNT][stack.graph.settings.region].services.values()
    (ingest,) = [one for one in services if "ingest" in one.name]
    # Nobody would read the stream, and what came in would be gone when its retention is over.
    ingest.desired_count = ingest.running_count = 0
    found = stack.site().writers(wanted="running")
    assert found.state == "by hand"
    assert "eav-prod-ingest" in found.detail

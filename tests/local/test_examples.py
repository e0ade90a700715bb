from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from local import aws, cluster, database_url, settings


@pytest.mark.parametrize("module", [aws, cluster, database_url, settings])
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0

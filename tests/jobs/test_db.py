from __future__ import annotations

from contextlib import closing

import pytest

from jobs import db
from tests.conftest import Database


def test_an_interrupt_between_a_query_and_its_answer_is_the_only_thing_said(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(db.connect(database.url, None, "interrupted")) as connection:
        with pytest.raises(KeyboardInterrupt), connection.transaction():
            connection.pgconn.send_query(b"SELECT pg_sleep(60)")
            raise KeyboardInterrupt
        assert connection.pgconn.transaction_status == 1, "so that the rollback cannot be sent"
    assert caplog.records == []

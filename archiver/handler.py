"""The archiver as a Lambda function: `archiver.handler.handler`.

Logs are JSON, metrics are written in CloudWatch's embedded format, each run is a trace. The function raises when a
table failed, so that its alarm and its dead-letter queue see it. A run that comes near the time limit returns
`"finished": false`; whoever invoked it (a state machine, the next schedule) invokes it again, and it goes on.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit

from archiver import run
from archiver.aws import connect
from archiver.errors import ArchiverError
from archiver.names import METRICS, NAMESPACE, SERVICE
from archiver.settings import from_environment

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# Children of the logger `archiver`, which all modules here log to.
logger = Logger(service=SERVICE, logger_formatter=None, name="archiver")
tracer = Tracer(service=SERVICE)


@tracer.capture_lambda_handler(capture_response=False)
@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """One run. `event` may say `{"dry_run": true}`; all else is in the environment.

    Returns the statistics of each table, and whether all is done. Raises ArchiverError if a table failed.
    """
    environment = {**os.environ, "DRY_RUN": "true"} if event.get("dry_run") is True else os.environ
    settings = from_environment(environment)
    began = time.monotonic()
    aws = connect(settings.region, connections=settings.segments + 1)
    results = run.run(
        run.Context(
            aws,
            settings,
            time_left=lambda: context.get_remaining_time_in_millis() / 1000,
            traced=lambda table: tracer.provider.in_subsegment(f"## {table}"),
        )
    )
    for one in results:
        _publish(one)
        logger.info(
            "Archival process completed" if one.finished else "Archival process stopped",
            extra={
                "table": one.table,
                "stats": {**one.facts()["stats"], "startTime": round(one.began * 1000)},
                "durationSeconds": one.seconds,
                "finished": one.finished,
                "reason": one.reason,
                "apiCalls": one.api_calls,
            },
        )
    problems = [problem for one in results for problem in one.problems]
    if problems:
        raise ArchiverError("; ".join(problems))
    return {
        "finished": all(one.finished for one in results),
        "durationSeconds": round(time.monotonic() - began, 3),
        "tables": [one.facts() for one in results],
    }


def _publish(result: run.Result) -> None:
    """The metrics of one table, a line of embedded format each."""
    metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
    metrics.add_dimension("table", result.table)
    values = {name.capitalize(): number for name, number in result.facts()["stats"].items()}
    values |= {"Duration": result.seconds, "ApiCalls": result.api_calls, "Finished": int(result.finished)}
    for name, number in values.items():
        metrics.add_metric(name, MetricUnit(METRICS[name]), number)
    metrics.flush_metrics()

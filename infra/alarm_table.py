"""`python -m infra.alarm_table`: the tables of docs/monitoring.md, from what alarms, figures and runbooks are."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from infra.alarms import GIB, Alarm, Metric, catalogue, incidents
from infra.aws_metrics import RECOMMENDED
from infra.component import Context
from infra.graph import ACCOUNT, ROOT, read_config
from infra.monitoring import watched
from infra.naming import Names
from infra.settings import Settings, load
from jobs import names as figures
from runbooks.names import TRIGGERS

PAGE: Final = Path("docs") / "monitoring.md"
STACKS: Final = ("prod", "dev")
"""Together they have every alarm: provisioned and serverless, replicas and credits."""
_MARK: Final = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def stack_alarms(stack: str) -> tuple[Settings, tuple[Alarm, ...]]:
    """The settings of a stack by its file, and its alarms, as if its tasks ran and each zone had a NAT gateway."""
    settings = load(stack, read_config(stack))
    zones = tuple(f"{settings.region}{letter}" for letter in "abc"[: settings.network.zones])
    runs = settings.workers.model_copy(update={"image_digest": f"sha256:{'0' * 64}"})
    settings = settings.model_copy(update={"workers": runs})
    context = Context(settings, Names(stack), ACCOUNT, "aws", settings.region, zones)
    return settings, catalogue(settings, watched(context, {zone: f"nat-{zone}" for zone in zones}))


def alarms() -> str:
    """Each alarm of prod, and those that only dev has."""
    lines = [
        "| alarm | watches | from | for | urgency | acts through | no data | runbook |",
        "|" + " --- |" * 8,
    ]
    seen: set[str] = set()
    for stack in STACKS:
        for one in stack_alarms(stack)[1]:
            name = _general(one.name)
            if name not in seen:
                seen.add(name)
                lines.append(
                    f"| {name} | {_watches(one)} | {one.comparison} {_number(one)} | {one.window} | {one.severity}"
                    f" | {one.incident or ''} | {one.missing.treat} | {one.runbook} |"
                )
    return "\n".join(lines) + "\n"


def told() -> str:
    """Each incident of prod."""
    lines = ["| incident | urgency | says | quiet while | runbook |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {one.name} | {one.severity} | {one.meaning} | {one.after or ''} | {one.runbook} |"
        for one in incidents(stack_alarms("prod")[1])
    ]
    return "\n".join(lines) + "\n"


def readings() -> str:
    """Each figure."""
    lines = ["| figure | unit | by | is |", "| --- | --- | --- | --- |"]
    lines += [f"| {one.name} | {one.unit} | {one.by or ''} | {one.meaning} |" for one in figures.FIGURES]
    return "\n".join(lines) + "\n"


def runbooks() -> str:
    """Each runbook."""
    lines = ["| runbook | is for |", "| --- | --- |"]
    lines += [f"| {name} | {trigger} |" for name, trigger in sorted(TRIGGERS.items())]
    return "\n".join(lines) + "\n"


def without() -> str:
    """What AWS recommends an alarm on, and has none."""
    lines = ["| metric | why there is no alarm |", "| --- | --- |"]
    lines += [
        f"| {namespace.removeprefix('AWS/')} {name} | {why} |"
        for namespace, metrics in RECOMMENDED.items()
        for name, why in metrics.items()
        if why
    ]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """The page with its tables as they should be."""
    made = {
        "alarms": alarms, "without": without, "incidents": told, "figures": readings, "runbooks": runbooks,
    }  # fmt: skip
    return _MARK.sub(lambda found: found[1] + made[found[2]]() + found[3], text)


def _general(name: str) -> str:
    """Of each replica, zone and so on the same."""
    return re.sub(r"^replica-\d", "replica-N", re.sub(r"^nat-[a-z]+-[a-z]+-\d[a-z]", "nat-ZONE", name))


def _watches(alarm: Alarm) -> str:
    if alarm.expression is None:
        return _metric(alarm.metrics[0])
    if len({metric.name for metric in alarm.metrics}) == 1:
        return f"{_metric(alarm.metrics[0])}, of all operations"
    text = alarm.expression
    for number, metric in reversed(list(enumerate(alarm.metrics))):
        text = text.replace(f"m{number}", metric.name)
    return f"{_place(alarm.metrics[0])} `{text}`"


def _metric(metric: Metric) -> str:
    return f"{_place(metric)} {metric.name}, {metric.statistic.lower()}"


def _place(metric: Metric) -> str:
    return metric.namespace.removeprefix("AWS/")


def _number(alarm: Alarm) -> str:
    value, name = alarm.threshold, alarm.metrics[0].name
    if value >= GIB / 4 and re.search("Storage|Memory|Swap|Wal|Slot|Logs|Throughput|Unread", name):
        return f"{value / GIB:,.4g} GiB"
    return f"{value:,.15g}"


def main() -> int:
    """Write the tables into the page."""
    path = ROOT / PAGE
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{PAGE}: {len(alarms().splitlines()) - 2} alarms")
    return 0


if __name__ == "__main__":
    sys.exit(main())

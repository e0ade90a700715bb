"""Tell an exported stack which instances took the place of which: after a switch of blue/green, or a change of names.

Pulumi, as the provider below it, knows an instance by its DbiResourceId. Of each instance named this replaces `id` and
the output `resourceId`, and nothing else: the rest is what a `pulumi preview --refresh` shows. The state is read from a
file and printed; nothing is imported.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from infra.errors import InfraError

TYPE: Final = "aws:rds/instance:Instance"
RESOURCE_ID: Final = re.compile(r"db-[A-Z0-9]{10,40}")
EXPORT: Final = "pulumi stack export --file before.json"


def adopt(state: Mapping[str, Any], taken: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A stack's exported state with other instances, and what was changed, a line each.

    taken: old DbiResourceId → new. Raises InfraError for an id that is no instance's of this state, one that the state
    has already, and a state that no update may begin from.
    """
    _check_ids(taken)
    changed = copy.deepcopy(dict(state))
    deployment = changed.get("deployment")
    if not isinstance(deployment, dict) or not isinstance(deployment.get("resources"), list):
        raise InfraError(f"this is no exported stack: {EXPORT}")
    if deployment.get("pending_operations"):
        raise InfraError(
            "an update was interrupted (pending_operations): pulumi refresh first, then export again"
        )
    found = [one for one in deployment["resources"] if one.get("type") == TYPE]
    if going := [one for one in found if one.get("delete")]:
        raise InfraError(
            f"{_name(going[0])} is also there as one that is to be deleted, of a replacement that was interrupted:"
            " pulumi up or refresh first, then export again"
        )
    instances = {str(one.get("id")): one for one in found}
    for old, new in taken.items():
        if new in instances:
            raise InfraError(
                f"{new} is {_name(instances[new])} already, in place of {old}: nothing was changed"
            )
        if old not in instances:
            raise InfraError(
                f"{old} is no instance of this stack{_where(old, deployment['resources'], instances)}"
            )
    lines = []
    for old, new in taken.items():
        found = instances[old]
        outputs = found.get("outputs")
        if not isinstance(outputs, dict) or outputs.get("resourceId") != old:
            raise InfraError(
                f"{_name(found)}: id is {old}, resourceId is not: pulumi refresh first, then export again"
            )
        found["id"] = outputs["resourceId"] = new
        if outputs.get("id") == old:
            outputs["id"] = new
        lines.append(f"{_name(found)} ({outputs.get('identifier', '?')}): {old} → {new}")
    return changed, lines


def _check_ids(taken: Mapping[str, str]) -> None:
    for one in (*taken, *taken.values()):
        if not RESOURCE_ID.fullmatch(one):
            raise InfraError(
                f"{one!r} is no DbiResourceId: db- and 10 to 40 capital letters and digits, all of it"
            )
    if len(set(taken.values())) != len(taken):
        raise InfraError("two instances cannot be replaced by the same one")


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource.get("urn", "")).rpartition("::")[2] or "an instance"


def _where(
    old: str, resources: Sequence[Mapping[str, Any]], instances: Mapping[str, Mapping[str, Any]]
) -> str:
    """What else an id that is nobody's is a part of: what a search and replace would have spoiled."""
    longer = [one for one in instances if old in one]
    if longer:
        return f": it is a part of {longer[0]}, which is {_name(instances[longer[0]])}"
    for one in resources:
        if any(old in text for text in _texts(one)):
            return f", it stands in {_name(one)} ({one.get('type')}) only"
    return f": there are {', '.join(instances) or 'none'}"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m infra adopt-instances`; returns the exit code. Raises InfraError."""
    parser = argparse.ArgumentParser(
        prog="python -m infra adopt-instances",
        description=(__doc__ or "").strip(),
        epilog="exit codes: 0 printed; 1 refused, nothing was printed; 2 wrong usage",
    )
    parser.add_argument("state", type=Path, metavar="before.json", help=f"of {EXPORT}")
    parser.add_argument("pairs", nargs="+", metavar="OLD=NEW", help="DbiResourceIds such as db-ABC…=db-DEF…")
    options = parser.parse_args(argv)
    taken: dict[str, str] = {}
    for pair in options.pairs:
        old, _, new = pair.partition("=")
        if old in taken:
            raise InfraError(f"{old} is named twice")
        taken[old] = new
    try:
        state = json.loads(options.state.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InfraError(f"{options.state} is no JSON ({error}): {EXPORT}") from None
    except OSError as error:
        raise InfraError(f"{options.state}: {error.strerror}: {EXPORT}") from None
    if not isinstance(state, dict):
        raise InfraError(f"{options.state} is no exported stack: {EXPORT}")
    changed, lines = adopt(state, taken)
    print(json.dumps(changed, indent=4, ensure_ascii=False))
    for line in lines:
        print(line, file=sys.stderr)
    return 0

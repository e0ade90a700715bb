"""Whether the PostgreSQL that runs may become the one that the settings ask for: said before anything is declared."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.component import Context
from infra.errors import SettingsError
from infra.settings import Settings


def check(context: Context) -> None:
    """Ask AWS, by reading only, which version runs. Raises SettingsError where `judge` does."""
    name = context.names.of("postgres", "database")
    # The list is empty for a stack that has no database yet; asking for the one instance would fail there.
    found = aws.rds.get_instances(
        filters=[aws.rds.GetInstancesFilterArgs(name="db-instance-id", values=[name])]
    )
    if name in found.instance_identifiers:
        running = aws.rds.get_instance(db_instance_identifier=name).engine_version
        for warning in judge(context.settings, name, running):
            pulumi.log.warn(warning)


def judge(settings: Settings, name: str, running: str) -> list[str]:
    """What to warn of where instance `name` runs version `running`.

    Raises SettingsError for a change of the major version that nobody allowed, and for one that there is no way to.
    """
    wanted, file = settings.postgres, f"Pulumi.{settings.stack}.yaml"
    major = int(running.split(".")[0])
    if wanted.major < major:
        raise SettingsError(
            f"{file}: postgres.engine_version is {wanted.engine_version}, {name} runs {running}, and there is no way"
            f' back to an older major version: set it to "{major}"'
        )
    if wanted.major > major and not wanted.allow_major_upgrade:
        raise SettingsError(
            f"{file}: postgres.engine_version is {wanted.engine_version}, {name} runs {running}: a major upgrade is"
            " a blue/green deployment, or in place with postgres.allow_major_upgrade for that one deployment"
            " (docs/database-operations.md)"
        )
    if wanted.allow_major_upgrade and wanted.major == major:
        return [
            f"{file}: postgres.allow_major_upgrade is set and {name} runs {running} already: remove it, so that the"
            " next change of engine_version is asked about again"
        ]
    return []

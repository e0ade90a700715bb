"""All components of a stack, and what each is given of the others."""

from __future__ import annotations

import json
from typing import Any

import pulumi
from pulumi.runtime import config

from infra import bundle
from infra.archive import Archive
from infra.archiver import Archiver
from infra.bastion import Bastion
from infra.component import Context
from infra.cost import Cost
from infra.errors import InfraError
from infra.graph import check_apart
from infra.items import Items
from infra.keys import Keys
from infra.monitoring import Monitoring
from infra.network import Network
from infra.notices import Notices
from infra.postgres import Postgres
from infra.publisher import Publisher
from infra.settings import Settings, load
from infra.stream import Stream
from infra.upgrade import check
from infra.warehouse import Warehouse
from infra.workers import Workers


def main() -> None:
    """Declare the stack that Pulumi has chosen.

    Raises RunError, a line for each thing that is wrong, before any resource is declared: Pulumi says just that.
    """
    try:
        settings = settings_of(pulumi.get_stack())
        check_apart(settings)
        bundle.check_all()
    except InfraError as error:
        raise pulumi.RunError(str(error)) from None
    declare(settings)


def settings_of(stack: str) -> Settings:
    """The settings of a stack as Pulumi holds them. Raises SettingsError."""
    # All keys, not those that are looked for: one that is misspelt must not be passed over.
    given = {**config.get_config_env(), **config.CONFIG.get()}
    secret = {*config.get_config_secret_keys_env(), *filter(config.is_config_secret, given)}
    return load(
        stack, {key: {"secure": ""} if key in secret else _plain(text) for key, text in given.items()}
    )


def _plain(text: str) -> Any:
    """A value as it stands in the stack's file: Pulumi hands on what is no text as JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def declare(settings: Settings) -> None:
    """Every resource of a stack."""
    context = Context.of(settings)
    check(context)
    keys = Keys(context)
    notices = Notices(context, keys)
    network = Network(context, keys)
    stream = Stream(context, keys)
    items = Items(context, keys)
    archive = Archive(context, keys)
    postgres = Postgres(context, keys, notices, network)
    warehouse = Warehouse(context, keys, notices, network, stream, archive)
    archiver = Archiver(context, keys, notices, items, archive)
    workers = Workers(context, keys, network, postgres, stream, archive)
    publisher = Publisher(context, keys, network, postgres)
    Monitoring(
        context, notices, network, postgres, warehouse, stream, items, archive, archiver, workers, publisher
    )
    Cost(context, notices, postgres, workers)
    pulumi.export("postgres", postgres.endpoints)
    pulumi.export("registry", workers.repository.repository_url)
    # As `aws ecs run-task --network-configuration` takes it.
    pulumi.export(
        "migrate_network",
        pulumi.Output.json_dumps(
            {
                "awsvpcConfiguration": {
                    "subnets": network.subnet_ids("private"),
                    "securityGroups": [network.group_id("jobs")],
                    "assignPublicIp": "DISABLED",
                }
            }
        ),
    )
    if settings.network.bastion:
        pulumi.export("bastion", Bastion(context, keys, network).instance.id)

"""What every component shares: where it is declared, its names, and how what holds data is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.naming import Names
from infra.settings import Settings


@dataclass(frozen=True)
class Context:
    """Where a stack is declared."""

    settings: Settings
    names: Names
    account: str
    partition: str
    region: str
    zones: tuple[str, ...]
    """The names of the zones that the stack uses."""

    @classmethod
    def of(cls, settings: Settings) -> Context:
        """Asks AWS, by reading only, for the account and the zones of the stack's region."""
        found = aws.get_availability_zones(
            state="available",
            filters=[
                aws.GetAvailabilityZonesFilterArgs(name="opt-in-status", values=["opt-in-not-required"])
            ],
        )
        return cls(
            settings=settings,
            names=Names(settings.stack),
            account=aws.get_caller_identity().account_id,
            partition=aws.get_partition().partition,
            region=settings.region,
            zones=settings.network.choose_zones(found.names),
        )

    def arn(
        self, service: str, resource: str, *, region: str | None = None, account: str | None = None
    ) -> str:
        """An ARN of this account and region, for policies that name what they allow before it exists."""
        region = self.region if region is None else region
        account = self.account if account is None else account
        return f"arn:{self.partition}:{service}:{region}:{account}:{resource}"

    def via(self, *services: str) -> dict[str, str | list[str]]:
        """`kms:ViaService`: a key is used by way of these services of the stack's region, and by nobody himself."""
        hosts = [f"{service}.{self.region}.amazonaws.com" for service in services]
        return {"kms:ViaService": hosts if len(hosts) > 1 else hosts[0]}


class Component(pulumi.ComponentResource):
    """A part of the platform in one file; its resources are its children and its attributes.

    A subclass sets KIND, declares its resources with `self.options()`, and ends with `register_outputs`.
    """

    KIND: str

    def __init__(self, context: Context, options: pulumi.ResourceOptions | None = None) -> None:
        title = "".join(part.title() for part in self.KIND.split("-"))
        super().__init__(f"eav:{self.KIND}:{title}", self.KIND, None, options)
        self.context = context
        self.names = context.names

    def options(self, **more: Any) -> pulumi.ResourceOptions:
        """Of a child."""
        return pulumi.ResourceOptions(parent=self, **more)

    def data_options(self, **more: Any) -> pulumi.ResourceOptions:
        """Of a child that holds data: where the stack says so, Pulumi neither deletes nor replaces it."""
        keep = self.context.settings.protect_data
        return self.options(protect=keep, retain_on_delete=keep, **more)

    def log_group(self, thing: str, name: str, days: int, key: pulumi.Input[str]) -> aws.cloudwatch.LogGroup:
        """A child that what writes to it waits for: a service that finds none makes one without days and key."""
        return aws.cloudwatch.LogGroup(
            thing, name=name, retention_in_days=days, kms_key_id=key, opts=self.options()
        )

"""Who is told: a topic for what cannot wait, and one for the rest."""

from __future__ import annotations

from typing import Literal

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement, document
from infra.keys import PUBLISHERS, Keys

Urgency = Literal["page", "notice"]


class Notices(Component):
    """SNS topics with their subscriptions. Attributes: `topics` (urgency → topic), `policies` (likewise).

    A service that tries a topic when it is told of it, as RDS does, may publish only once the policy is there: what
    hands it the topic depends on the policy.
    """

    KIND = "notices"

    def __init__(self, context: Context, keys: Keys, options: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(context, options)
        monitoring = context.settings.monitoring
        people: dict[Urgency, tuple[str, ...]] = {"page": monitoring.page, "notice": monitoring.notice}
        self.policies: dict[Urgency, aws.sns.TopicPolicy] = {}
        self.topics: dict[Urgency, aws.sns.Topic] = {
            urgency: self._topic(urgency, addresses, keys) for urgency, addresses in people.items()
        }
        self.register_outputs({"topics": {urgency: topic.arn for urgency, topic in self.topics.items()}})

    def arn(self, urgency: Urgency) -> pulumi.Output[str]:
        """Of the topic."""
        return self.topics[urgency].arn

    def _topic(self, urgency: Urgency, addresses: tuple[str, ...], keys: Keys) -> aws.sns.Topic:
        topic = aws.sns.Topic(
            f"topic-{urgency}",
            name=self.names.of(urgency, "topic"),
            kms_master_key_id=keys.arn("notices"),
            opts=self.options(),
        )
        self.policies[urgency] = aws.sns.TopicPolicy(
            f"topic-{urgency}-policy",
            arn=topic.arn,
            policy=document(
                Statement(
                    "ServicesOfThisAccount",
                    ["sns:Publish"],
                    [topic.arn],
                    conditions={"StringEquals": {"aws:SourceAccount": self.context.account}},
                    principals={"Service": [f"{name}.amazonaws.com" for name in PUBLISHERS]},
                ),
                Statement(
                    "OnlyByTls",
                    ["sns:Publish"],
                    [topic.arn],
                    conditions={"Bool": {"aws:SecureTransport": "false"}},
                    principals="*",
                    effect="Deny",
                ),
            ),
            opts=self.options(),
        )
        for index, address in enumerate(addresses):
            aws.sns.TopicSubscription(
                f"topic-{urgency}-{index}",
                topic=topic.arn,
                protocol="email",
                endpoint=address,
                opts=self.options(),
            )
        return topic

"""An instance without inbound rules, for psql and alembic by SSM Session Manager."""

from __future__ import annotations

import json
from typing import Any, Final

import pulumi
import pulumi_aws as aws

from infra.component import Component, Context
from infra.iam import Statement, service_role
from infra.keys import Keys
from infra.network import Network

IMAGE: Final = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
"""AWS's own parameter: the newest Amazon Linux 2023, with the agent of SSM in it."""
CLIENT_NEWEST: Final = 17
"""Major version of psql in Amazon Linux 2023; it talks to newer servers, too."""
CERTIFICATES: Final = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
DISK_GB: Final = 10
SWAP_MB: Final = 1024
IDLE_MINUTES: Final = 20
SESSION_MINUTES: Final = 720


def user_data(major: int) -> str:
    """What the instance runs once: psql of the server's major version, and who may say to be a server of RDS."""
    client = f"postgresql{min(major, CLIENT_NEWEST)}"
    return f"""#!/bin/bash
# dnf takes more memory than the smallest instances have.
dd if=/dev/zero of=/swap bs=1M count={SWAP_MB} status=none
chmod 0600 /swap
mkswap /swap
swapon /swap
# Packages come from a bucket of AWS, through the endpoint of S3: also where there is no way to the internet.
dnf -y -q install {client}
# This does not: without that way, fetch it elsewhere and paste it. psql needs it for sslmode=verify-full.
install -d /etc/eav
if curl -fsS --retry 3 --max-time 60 -o /etc/eav/rds-ca.pem {CERTIFICATES}; then
    chmod 0444 /etc/eav/rds-ca.pem
fi
"""


def session_document(log_group: str, key: str) -> dict[str, Any]:
    """How sessions are held (`aws ssm start-session --document-name`): encrypted, recorded, and not for ever."""
    return {
        "schemaVersion": "1.0",
        "description": "A shell on the bastion, recorded",
        "sessionType": "Standard_Stream",
        "inputs": {
            "cloudWatchLogGroupName": log_group,
            # Refuse to begin where the group is not encrypted.
            "cloudWatchEncryptionEnabled": True,
            "cloudWatchStreamingEnabled": True,
            "kmsKeyId": key,
            "idleSessionTimeout": str(IDLE_MINUTES),
            "maxSessionDuration": str(SESSION_MINUTES),
            "runAsEnabled": False,
        },
    }


class Bastion(Component):
    """An instance without inbound rules, for psql and alembic by SSM Session Manager.

    Attributes: `instance` (aws.ec2.Instance), `document` (aws.ssm.Document), `log` (aws.cloudwatch.LogGroup).

    It has no rights but to be reached: who logs in to a database brings a token or password of their own. Ports that
    are forwarded through it (`AWS-StartPortForwardingSessionToRemoteHost`) are in CloudTrail, what goes through them
    is in PostgreSQL's own log.
    """

    KIND = "bastion"

    def __init__(
        self,
        context: Context,
        keys: Keys,
        network: Network,
        options: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(context, options)
        self.settings = context.settings.network
        self.keys = keys
        self.log = self.log_group(
            "bastion", self.names.path("bastion"), self.settings.bastion_log_days, keys.arn("logs")
        )
        # A document of our own: the account's SSM-SessionManagerRunShell holds for every instance of every stack.
        self.document = aws.ssm.Document(
            "shell",
            name=self.names.of("shell"),
            document_type="Session",
            document_format="JSON",
            content=pulumi.Output.all(self.log.name, keys.arn("compute")).apply(
                lambda found: json.dumps(session_document(*found))
            ),
            # AWS takes no new content for some documents, and no second one of a name.
            opts=self.options(delete_before_replace=True),
        )
        self.instance = self._instance(network)
        self.register_outputs({"instance": self.instance.id, "document": self.document.name})

    def _instance(self, network: Network) -> aws.ec2.Instance:
        # EC2 sends no account along when it takes a role for an instance.
        role = service_role(self, "bastion", "ec2.amazonaws.com", *self._statements(), trust={})
        profile = aws.iam.InstanceProfile(
            "bastion", name=self.names.of("bastion", "role"), role=role.name, opts=self.options()
        )
        return aws.ec2.Instance(
            "bastion",
            ami=aws.ssm.get_parameter(name=IMAGE).insecure_value,
            instance_type=self.settings.bastion_instance,
            subnet_id=network.subnet_ids("private")[0],
            vpc_security_group_ids=[network.group_id("bastion")],
            associate_public_ip_address=False,
            iam_instance_profile=profile.name,
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True,
                kms_key_id=self.keys.arn("compute"),
                volume_type="gp3",
                volume_size=DISK_GB,
                delete_on_termination=True,
                tags=self._tags(),
            ),
            # Bursts beyond its credits would be billed; nobody computes here.
            credit_specification=aws.ec2.InstanceCreditSpecificationArgs(cpu_credits="standard"),
            ebs_optimized=True,
            monitoring=False,
            user_data=user_data(self.context.settings.postgres.major),
            user_data_replace_on_change=True,
            tags=self._tags(),
            # AWS publishes an image every other week, and each would replace the instance, with the sessions on it.
            # To take the newest one: pulumi up --replace on its URN.
            # What it runs once it runs when it is made: not before there is a way to what it fetches.
            opts=self.options(ignore_changes=["ami"], depends_on=network.ways_out),
        )

    def _tags(self) -> dict[str, str]:
        return {"Name": self.names.of("bastion")}

    def _statements(self) -> tuple[Statement, ...]:
        """What Session Manager needs of AmazonSSMManagedInstanceCore, which allows to read every parameter, too."""
        here = self.context
        return (
            Statement(
                "SayThatItIsThere",
                ["ssm:UpdateInstanceInformation"],
                [here.arn("ec2", "instance/*")],
            ),
            # These know no resource: a channel is the instance's own, by its credentials.
            Statement(
                "Sessions",
                [
                    "ssmmessages:CreateControlChannel",
                    "ssmmessages:CreateDataChannel",
                    "ssmmessages:OpenControlChannel",
                    "ssmmessages:OpenDataChannel",
                ],
                ["*"],
            ),
            Statement("EncryptSessions", ["kms:Decrypt"], [self.keys.arn("compute")]),
            Statement(
                "RecordSessions",
                ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                [pulumi.Output.concat(self.log.arn, ":*")],
            ),
            # To see that the group is encrypted; the call names no group.
            Statement("LookAtLogGroups", ["logs:DescribeLogGroups"], ["*"]),
        )

"""What is added to moto keeps what it is given, and refuses a reference to nothing."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.cloudwatch.exceptions import ValidationError

from infra.emulated import definition_problems, rule_alarms
from infra.emulator import emulator
from infra.graph import Graph

Client = Callable[..., Any]
NOBODY = "arn:aws:iam::123456789012:role/nobody"
NO_KEY = "arn:aws:kms:eu-central-1:123456789012:key/none"
NO_TOPIC = "arn:aws:sns:eu-central-1:123456789012:none"
IMAGE = "ami-0123456789abcdef0"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of a service, of one emulator for all tests here: each uses names of its own."""
    with emulator([IMAGE]) as url:
        session: Any = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b")
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})

        def make(service: str, region: str = "eu-central-1") -> Any:
            return session.client(service, region_name=region, endpoint_url=url, config=config)

        yield make


def refused(call: Callable[..., Any], code: str, **given: Any) -> None:
    with pytest.raises(ClientError) as error:
        call(**given)
    assert error.value.response["Error"]["Code"] == code


@pytest.fixture(scope="module")
def role(client: Client) -> str:
    found: str = client("iam").create_role(RoleName="role", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    return found


@pytest.fixture(scope="module")
def topic(client: Client) -> str:
    found: str = client("sns").create_topic(Name="topic")["TopicArn"]
    return found


@pytest.fixture(scope="module")
def key(client: Client) -> str:
    found: str = client("kms").create_key()["KeyMetadata"]["Arn"]
    return found


@pytest.fixture(scope="module")
def cluster(client: Client, role: str, key: str) -> str:
    """With all of its settings, which the test of it looks at."""
    redshift = client("redshift")
    (subnet, *_) = client("ec2").describe_subnets()["Subnets"]
    redshift.create_cluster_subnet_group(
        ClusterSubnetGroupName="subnets", Description="d", SubnetIds=[subnet["SubnetId"]]
    )
    redshift.create_cluster(
        ClusterIdentifier="warehouse",
        ClusterSubnetGroupName="subnets",
        NodeType="ra3.4xlarge",
        ClusterType="multi-node",
        NumberOfNodes=2,
        MasterUsername="admin",
        ManageMasterPassword=True,
        MasterPasswordSecretKmsKeyId=key,
        IamRoles=[role],
        DefaultIamRoleArn=role,
        AvailabilityZoneRelocation=True,
        ManualSnapshotRetentionPeriod=35,
        Encrypted=True,
        KmsKeyId=key,
    )
    return "warehouse"


def test_a_cluster_has_what_it_was_given(client: Client, cluster: str, role: str, key: str) -> None:
    (found,) = client("redshift").describe_clusters(ClusterIdentifier=cluster)["Clusters"]
    assert found["ClusterAvailabilityStatus"] == "Available"
    assert found["AvailabilityZoneRelocationStatus"] == "enabled"
    assert found["ManualSnapshotRetentionPeriod"] == 35
    assert found["DefaultIamRoleArn"] == role
    assert found["MasterPasswordSecretKmsKeyId"] == key
    assert [one["NodeRole"] for one in found["ClusterNodes"]] == ["LEADER", "COMPUTE-0", "COMPUTE-1"]
    secret = client("secretsmanager").describe_secret(SecretId=found["MasterPasswordSecretArn"])
    assert secret["OwningService"] == "redshift"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"ClusterSubnetGroupName": "none"}, "ClusterSubnetGroupNotFoundFault"),
        ({"ClusterParameterGroupName": "none"}, "ClusterParameterGroupNotFound"),
        ({"IamRoles": [NOBODY]}, "InvalidParameterValue"),
        ({"KmsKeyId": NO_KEY}, "LimitExceededFault"),
        ({"VpcSecurityGroupIds": ["sg-none"]}, "InvalidVPCNetworkStateFault"),
        ({"MasterUserPassword": "Secret12"}, "InvalidParameterCombination"),
    ],
)
def test_a_cluster_refers_to_what_is_there(client: Client, given: dict[str, Any], code: str) -> None:
    other = {"ClusterIdentifier": "wrong", "NodeType": "ra3.large", "MasterUsername": "a"}
    refused(client("redshift").create_cluster, code, **other, ManageMasterPassword=True, **given)


def test_roles_of_a_cluster(client: Client, cluster: str, role: str) -> None:
    redshift = client("redshift")
    answer = redshift.modify_cluster_iam_roles(ClusterIdentifier=cluster, AddIamRoles=[role])
    assert [one["IamRoleArn"] for one in answer["Cluster"]["IamRoles"]] == [role]
    refused(
        redshift.modify_cluster_iam_roles,
        "InvalidParameterValue",
        ClusterIdentifier=cluster,
        AddIamRoles=[NOBODY],
    )
    refused(redshift.modify_cluster_iam_roles, "ClusterNotFound", ClusterIdentifier="none")


def test_parameters_of_a_warehouse(client: Client) -> None:
    redshift = client("redshift")
    group = {"ParameterGroupName": "parameters", "ParameterGroupFamily": "redshift-1.0", "Description": "d"}
    redshift.create_cluster_parameter_group(**group)
    refused(redshift.create_cluster_parameter_group, "ClusterParameterGroupAlreadyExists", **group)

    def change(name: str, of: str = "parameters") -> dict[str, Any]:
        return {
            "ParameterGroupName": of,
            "Parameters": [{"ParameterName": name, "ParameterValue": "true"}],
        }

    redshift.modify_cluster_parameter_group(**change("require_ssl"))
    (found,) = redshift.describe_cluster_parameters(ParameterGroupName="parameters", Source="user")[
        "Parameters"
    ]
    assert (found["ParameterName"], found["ParameterValue"]) == ("require_ssl", "true")
    refused(redshift.modify_cluster_parameter_group, "InvalidParameterValue", **change("no_such"))
    refused(
        redshift.modify_cluster_parameter_group,
        "ClusterParameterGroupNotFound",
        **change("require_ssl", "none"),
    )


def test_copies_of_snapshots(client: Client, cluster: str) -> None:
    key = client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    tags = [{"Key": "a", "Value": "b"}]
    there = client("redshift", "eu-west-1")
    there.create_snapshot_copy_grant(SnapshotCopyGrantName="copies", KmsKeyId=key, Tags=tags)
    (grant,) = there.describe_snapshot_copy_grants()["SnapshotCopyGrants"]
    assert grant["Tags"] == tags
    refused(
        there.create_snapshot_copy_grant,
        "InvalidParameterValue",
        SnapshotCopyGrantName="b",
        KmsKeyId=NO_KEY,
    )

    redshift = client("redshift")
    copy = {"ClusterIdentifier": cluster, "DestinationRegion": "eu-west-1", "RetentionPeriod": 7}
    refused(
        redshift.enable_snapshot_copy,
        "SnapshotCopyGrantNotFoundFault",
        **copy,
        SnapshotCopyGrantName="none",
    )
    redshift.enable_snapshot_copy(**copy, SnapshotCopyGrantName="copies", ManualSnapshotRetentionPeriod=35)
    (found,) = redshift.describe_clusters(ClusterIdentifier=cluster)["Clusters"]
    assert found["ClusterSnapshotCopyStatus"] == {
        "DestinationRegion": "eu-west-1",
        "RetentionPeriod": 7,
        "ManualSnapshotRetentionPeriod": 35,
        "SnapshotCopyGrantName": "copies",
    }
    refused(redshift.enable_snapshot_copy, "ClusterNotFound", **copy | {"ClusterIdentifier": "none"})


def test_snapshot_schedules(client: Client, cluster: str) -> None:
    redshift = client("redshift")
    schedule = {"ScheduleIdentifier": "often", "ScheduleDefinitions": ["rate(4 hours)"]}
    redshift.create_snapshot_schedule(**schedule)
    redshift.modify_cluster_snapshot_schedule(ClusterIdentifier=cluster, ScheduleIdentifier="often")
    (found,) = redshift.describe_snapshot_schedules(ClusterIdentifier=cluster)["SnapshotSchedules"]
    assert found["ScheduleDefinitions"] == ["rate(4 hours)"]
    assert found["AssociatedClusters"] == [
        {"ClusterIdentifier": cluster, "ScheduleAssociationState": "ACTIVE"}
    ]
    refused(redshift.create_snapshot_schedule, "SnapshotScheduleAlreadyExists", **schedule)
    refused(
        redshift.create_snapshot_schedule,
        "InvalidSchedule",
        ScheduleIdentifier="b",
        ScheduleDefinitions=["daily"],
    )
    refused(
        redshift.modify_cluster_snapshot_schedule,
        "SnapshotScheduleNotFound",
        ClusterIdentifier=cluster,
        ScheduleIdentifier="none",
    )
    refused(
        redshift.modify_cluster_snapshot_schedule,
        "ClusterNotFound",
        ClusterIdentifier="none",
        ScheduleIdentifier="often",
    )


def test_usage_limits(client: Client, cluster: str) -> None:
    redshift = client("redshift")
    limit = {"ClusterIdentifier": cluster, "FeatureType": "spectrum", "LimitType": "data-scanned"}
    made = redshift.create_usage_limit(**limit, Amount=5, BreachAction="disable")
    (found,) = redshift.describe_usage_limits(UsageLimitId=made["UsageLimitId"])["UsageLimits"]
    assert {key: found[key] for key in ("Amount", "Period", "BreachAction")} == {
        "Amount": 5,
        "Period": "monthly",
        "BreachAction": "disable",
    }
    refused(redshift.create_usage_limit, "UsageLimitAlreadyExists", **limit, Amount=6)
    refused(redshift.create_usage_limit, "ClusterNotFound", **limit | {"ClusterIdentifier": "none"}, Amount=6)
    refused(redshift.describe_usage_limits, "UsageLimitNotFound", UsageLimitId="none")


def test_event_subscriptions_of_a_warehouse(client: Client, cluster: str, topic: str) -> None:
    redshift = client("redshift")
    given = {"SubscriptionName": "s", "SnsTopicArn": topic, "SourceType": "cluster", "SourceIds": [cluster]}
    redshift.create_event_subscription(**given, EventCategories=["security"], Severity="ERROR")
    (found,) = redshift.describe_event_subscriptions(SubscriptionName="s")["EventSubscriptionsList"]
    assert found["SourceIdsList"] == [cluster]
    assert (found["EventCategoriesList"], found["Severity"]) == (["security"], "ERROR")
    refused(redshift.create_event_subscription, "SubscriptionAlreadyExist", **given)
    given["SubscriptionName"] = "t"
    refused(redshift.create_event_subscription, "SNSTopicArnNotFound", **given | {"SnsTopicArn": NO_TOPIC})
    refused(redshift.create_event_subscription, "SourceNotFound", **given | {"SourceIds": ["none"]})
    refused(redshift.describe_event_subscriptions, "SubscriptionNotFound", SubscriptionName="none")


def test_scheduled_actions(client: Client, cluster: str, role: str) -> None:
    redshift = client("redshift")
    given = {
        "ScheduledActionName": "pause",
        "TargetAction": {"PauseCluster": {"ClusterIdentifier": cluster}},
        "Schedule": "cron(0 20 * * ? *)",
        "IamRole": role,
    }
    redshift.create_scheduled_action(**given)
    (found,) = redshift.describe_scheduled_actions(ScheduledActionName="pause")["ScheduledActions"]
    assert {name: found[name] for name in given} == given
    refused(redshift.create_scheduled_action, "ScheduledActionAlreadyExists", **given)
    given["ScheduledActionName"] = "other"
    refused(redshift.create_scheduled_action, "InvalidParameterValue", **given | {"IamRole": NOBODY})
    given["TargetAction"] = {"PauseCluster": {"ClusterIdentifier": "none"}}
    refused(redshift.create_scheduled_action, "ClusterNotFound", **given)
    refused(redshift.describe_scheduled_actions, "ScheduledActionNotFound", ScheduledActionName="none")


def test_a_serverless_warehouse(client: Client, role: str, key: str) -> None:
    serverless = client("redshift-serverless")
    namespace = {"namespaceName": "space", "iamRoles": [role], "kmsKeyId": key, "logExports": ["userlog"]}
    create = serverless.create_namespace
    tags = [{"key": "a", "value": "b"}]
    create(**namespace, manageAdminPassword=True, adminPasswordSecretKmsKeyId=key, tags=tags)
    found = serverless.get_namespace(namespaceName="space")["namespace"]
    assert {name: found[name] for name in namespace} == namespace
    assert serverless.list_tags_for_resource(resourceArn=found["namespaceArn"])["tags"] == tags
    client("secretsmanager").describe_secret(SecretId=found["adminPasswordSecretArn"])
    other = {"namespaceName": "other", "manageAdminPassword": True}
    refused(create, "ConflictException", **other | {"namespaceName": "space"})
    refused(create, "ValidationException", **other, iamRoles=[NOBODY])
    refused(create, "ValidationException", **other, kmsKeyId=NO_KEY)
    refused(create, "ValidationException", **other, adminUserPassword="Secret12")
    refused(serverless.get_namespace, "ResourceNotFoundException", namespaceName="none")

    workgroup = {"workgroupName": "group", "namespaceName": "space", "baseCapacity": 8}
    create = serverless.create_workgroup
    refused(create, "ResourceNotFoundException", **workgroup | {"namespaceName": "none"})
    refused(create, "ValidationException", **workgroup, subnetIds=["subnet-none"])
    refused(create, "ValidationException", **workgroup, securityGroupIds=["sg-none"])
    create(**workgroup)
    found = serverless.get_workgroup(workgroupName="group")["workgroup"]
    assert {name: found[name] for name in workgroup} == workgroup
    refused(create, "ConflictException", **workgroup | {"workgroupName": "second"})

    limit = {"resourceArn": found["workgroupArn"], "usageType": "serverless-compute", "amount": 8}
    made = serverless.create_usage_limit(**limit, breachAction="deactivate")["usageLimit"]
    found = serverless.get_usage_limit(usageLimitId=made["usageLimitId"])["usageLimit"]
    assert {name: found[name] for name in limit} == limit
    refused(serverless.create_usage_limit, "ConflictException", **limit)
    refused(
        serverless.create_usage_limit, "ResourceNotFoundException", **limit | {"resourceArn": f"{NOBODY}x"}
    )


PRIMARY = {
    "DBInstanceIdentifier": "primary",
    "DBInstanceClass": "db.r7g.large",
    "Engine": "postgres",
    "AllocatedStorage": 100,
    "MasterUsername": "admin",
    "MasterUserPassword": "password",
    "BackupRetentionPeriod": 7,
}


@pytest.fixture(scope="module")
def primary(client: Client, key: str) -> dict[str, Any]:
    found: dict[str, Any] = client("rds").create_db_instance(
        **PRIMARY,
        StorageEncrypted=True,
        KmsKeyId=key,
        EnablePerformanceInsights=True,
        PerformanceInsightsKMSKeyId=key,
        PerformanceInsightsRetentionPeriod=731,
    )["DBInstance"]
    return found


def test_an_instance_has_performance_insights_and_checks_its_references(
    client: Client, primary: dict[str, Any], key: str
) -> None:
    rds = client("rds")
    (found,) = rds.describe_db_instances(DBInstanceIdentifier="primary")["DBInstances"]
    assert found["PerformanceInsightsEnabled"]
    assert found["PerformanceInsightsKMSKeyId"] == key
    assert found["PerformanceInsightsRetentionPeriod"] == 731
    other = PRIMARY | {"DBInstanceIdentifier": "other"}
    refused(rds.create_db_instance, "KMSKeyNotAccessibleFault", **other, KmsKeyId=NO_KEY)
    refused(
        rds.create_db_instance,
        "InvalidParameterValue",
        **other,
        MonitoringInterval=15,
        MonitoringRoleArn=NOBODY,
    )


def test_a_replica_is_an_instance_of_its_own(client: Client, primary: dict[str, Any]) -> None:
    rds = client("rds")
    given = {"DBInstanceIdentifier": "replica", "SourceDBInstanceIdentifier": "primary"}
    rds.create_db_instance_read_replica(**given, Tags=[{"Key": "a", "Value": "b"}])
    (found,) = rds.describe_db_instances(DBInstanceIdentifier="replica")["DBInstances"]
    assert found["DbiResourceId"] != primary["DbiResourceId"]
    assert found["ReadReplicaSourceDBInstanceIdentifier"] == "primary"
    assert found["BackupRetentionPeriod"] == 0
    assert not found["PerformanceInsightsEnabled"]
    rds.modify_db_instance(DBInstanceIdentifier="replica", EnablePerformanceInsights=True)
    (source,) = rds.describe_db_instances(DBInstanceIdentifier="primary")["DBInstances"]
    assert source["ReadReplicaDBInstanceIdentifiers"] == ["replica"]
    assert source["TagList"] == []
    by_id = [{"Name": "dbi-resource-id", "Values": [found["DbiResourceId"]]}]
    (found,) = rds.describe_db_instances(Filters=by_id)["DBInstances"]
    assert found["PerformanceInsightsEnabled"]
    refused(rds.create_db_instance_read_replica, "DBInstanceAlreadyExists", **given)
    given["DBInstanceIdentifier"] = "other"
    refused(
        rds.create_db_instance_read_replica,
        "DBInstanceNotFound",
        **given | {"SourceDBInstanceIdentifier": "none"},
    )
    refused(
        rds.create_db_instance_read_replica, "DBParameterGroupNotFound", **given, DBParameterGroupName="none"
    )
    # A replica without backups is no source of another.
    refused(
        rds.create_db_instance_read_replica,
        "InvalidDBInstanceState",
        **given | {"SourceDBInstanceIdentifier": "replica"},
    )


def test_backups_in_another_region(client: Client, primary: dict[str, Any]) -> None:
    there = client("rds", "eu-west-1")
    key = client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    start = there.start_db_instance_automated_backups_replication
    source = primary["DBInstanceArn"]
    refused(start, "InvalidParameterValue", SourceDBInstanceArn=source)
    refused(start, "DBInstanceNotFound", SourceDBInstanceArn=f"{source}-none", KmsKeyId=key)
    refused(start, "KMSKeyNotAccessibleFault", SourceDBInstanceArn=source, KmsKeyId=NO_KEY)
    made = start(SourceDBInstanceArn=source, KmsKeyId=key, BackupRetentionPeriod=35)
    arn = made["DBInstanceAutomatedBackup"]["DBInstanceAutomatedBackupsArn"]
    find = there.describe_db_instance_automated_backups
    (found,) = find(DBInstanceAutomatedBackupsArn=arn)["DBInstanceAutomatedBackups"]
    assert (found["DBInstanceArn"], found["BackupRetentionPeriod"], found["Status"]) == (
        source,
        35,
        "replicating",
    )
    refused(start, "InvalidDBInstanceState", SourceDBInstanceArn=source, KmsKeyId=key)
    refused(find, "DBInstanceAutomatedBackupNotFound", DBInstanceAutomatedBackupsArn=f"{arn}x")


def test_parameters_of_an_instance(client: Client) -> None:
    rds = client("rds")
    rds.create_db_parameter_group(
        DBParameterGroupName="group", DBParameterGroupFamily="postgres17", Description="d"
    )
    parameter = {"ParameterName": "jit", "ParameterValue": "0", "ApplyMethod": "immediate"}
    rds.modify_db_parameter_group(DBParameterGroupName="group", Parameters=[parameter])
    find = rds.describe_db_parameters
    assert find(DBParameterGroupName="group", Source="user")["Parameters"] == [parameter | {"Source": "user"}]
    assert find(DBParameterGroupName="group", Source="system")["Parameters"] == []
    refused(find, "DBParameterGroupNotFound", DBParameterGroupName="none")


def test_composite_alarms(client: Client, topic: str) -> None:
    alarms = client("cloudwatch")
    metric = {"MetricName": "m", "Namespace": "n", "Period": 60, "EvaluationPeriods": 1, "Statistic": "Sum"}
    for name in ("one", "two"):
        alarms.put_metric_alarm(
            AlarmName=name, Threshold=1, ComparisonOperator="GreaterThanThreshold", **metric
        )
    given = {
        "AlarmName": "both",
        "AlarmRule": 'ALARM("one") AND NOT OK("two")',
        "ActionsSuppressor": "two",
        "ActionsSuppressorWaitPeriod": 60,
        "ActionsSuppressorExtensionPeriod": 120,
        "AlarmActions": [topic],
    }
    alarms.put_composite_alarm(**given)
    (found,) = alarms.describe_alarms(AlarmNames=["both"], AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    assert {name: found[name] for name in given} == given
    put = alarms.put_composite_alarm
    refused(put, "ValidationError", **given | {"AlarmRule": 'ALARM("none")'})
    refused(put, "ValidationError", **given | {"ActionsSuppressor": "none"})
    refused(put, "ValidationError", AlarmName="c", AlarmRule="TRUE", ActionsSuppressor="two")


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        ('ALARM("a b") OR OK(c)', ["a b", "c"]),
        ('NOT (ALARM("a") AND (TRUE OR INSUFFICIENT_DATA("b")))', ["a", "b"]),
        ('ALARM("a") ALARM("b")', None),
        ('ALARM("a") AND', None),
        ('(ALARM("a")', None),
        ('ALERT("a")', None),
        ("", None),
    ],
)
def test_rules_of_composite_alarms(rule: str, names: list[str] | None) -> None:
    if names is not None:
        assert rule_alarms(rule) == names
        return
    with pytest.raises(ValidationError):
        rule_alarms(rule)


def machine(**states: Any) -> str:
    return json.dumps({"StartAt": "First", "States": states})


WAIT = {"Type": "Wait", "Seconds": 1, "Next": "Last"}
LAST = {"Type": "Succeed"}


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        (machine(First=WAIT, Last=LAST), ""),
        ("{", "line 1"),
        (machine(First=WAIT | {"Type": "Sleep"}, Last=LAST), "Sleep"),
        (machine(First=WAIT), "Next at /States/First: there is no state Last"),
        (machine(Last=LAST), "StartAt at /: there is no state First"),
        (machine(First=LAST, Last=LAST), "/States/Last: no state leads to it"),
        (machine(First={"Type": "Wait", "Seconds": 1}), "/States/First: neither Next nor End"),
    ],
)
def test_definitions_of_state_machines(definition: str, says: str) -> None:
    found = definition_problems(definition)
    assert any(says in one for one in found) if says else found == []


def test_state_machines(client: Client, role: str) -> None:
    states = client("stepfunctions")
    good, bad = machine(First=LAST), machine(First=WAIT)
    assert states.validate_state_machine_definition(definition=good)["result"] == "OK"
    answer = states.validate_state_machine_definition(definition=bad)
    assert answer["result"] == "FAIL"
    assert answer["diagnostics"][0]["severity"] == "ERROR"
    arn = states.create_state_machine(name="m", definition=good, roleArn=role, publish=True)[
        "stateMachineArn"
    ]
    versions = states.list_state_machine_versions(stateMachineArn=arn)["stateMachineVersions"]
    assert [one["stateMachineVersionArn"] for one in versions] == [f"{arn}:1"]
    create = states.create_state_machine
    refused(create, "InvalidDefinition", name="n", definition=bad, roleArn=role)
    refused(create, "AccessDeniedException", name="n", definition=good, roleArn=NOBODY)


def test_metrics_and_logging_of_a_bucket(client: Client) -> None:
    s3 = client("s3")
    for name in ("data", "logs"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    wanted = {"Id": "all", "Filter": {"Prefix": "p/"}}
    s3.put_bucket_metrics_configuration(Bucket="data", Id="all", MetricsConfiguration=wanted)
    get = s3.get_bucket_metrics_configuration
    assert get(Bucket="data", Id="all")["MetricsConfiguration"] == wanted
    refused(get, "NoSuchConfiguration", Bucket="data", Id="none")
    refused(get, "NoSuchBucket", Bucket="none", Id="all")

    logging = {
        "Bucket": "data",
        "BucketLoggingStatus": {"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "data/"}},
    }
    refused(s3.put_bucket_logging, "InvalidTargetBucketForLogging", **logging)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": ["arn:aws:s3:::logs/other/*"],
    }
    s3.put_bucket_policy(Bucket="logs", Policy=json.dumps({"Statement": [statement]}))
    refused(s3.put_bucket_logging, "InvalidTargetBucketForLogging", **logging)
    statement["Resource"] = ["arn:aws:s3:::logs/other/*", "arn:aws:s3:::logs/data/*"]
    s3.put_bucket_policy(Bucket="logs", Policy=json.dumps({"Statement": [statement]}))
    s3.put_bucket_logging(**logging)
    assert s3.get_bucket_logging(Bucket="data")["LoggingEnabled"]["TargetPrefix"] == "data/"


def test_an_instance_of_ec2(client: Client) -> None:
    ec2 = client("ec2")
    (subnet, *_) = ec2.describe_subnets()["Subnets"]
    group = ec2.create_security_group(GroupName="g", Description="d", VpcId=subnet["VpcId"])["GroupId"]
    interface = {
        "DeviceIndex": 0,
        "SubnetId": subnet["SubnetId"],
        "Groups": [group],
        "AssociatePublicIpAddress": False,
    }
    run = {"ImageId": IMAGE, "MinCount": 1, "MaxCount": 1, "NetworkInterfaces": [interface]}
    standard = {"CpuCredits": "standard"}
    (made,) = ec2.run_instances(InstanceType="t4g.nano", CreditSpecification=standard, **run)["Instances"]
    (found,) = ec2.describe_instance_credit_specifications(InstanceIds=[made["InstanceId"]])[
        "InstanceCreditSpecifications"
    ]
    assert found["CpuCredits"] == "standard"
    (reservation,) = ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"]
    (instance,) = reservation["Instances"]
    assert [one["GroupId"] for one in instance["SecurityGroups"]] == [group]
    assert "Association" not in instance["NetworkInterfaces"][0]
    refused(
        ec2.run_instances,
        "InvalidParameterCombination",
        InstanceType="m7g.large",
        CreditSpecification=standard,
        **run,
    )


def test_rules_of_a_security_group_say_what_they_are_for(client: Client) -> None:
    ec2 = client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    one, two = (
        ec2.create_security_group(GroupName=name, Description="d", VpcId=vpc)["GroupId"]
        for name in ("one", "two")
    )
    prefixes = ec2.describe_managed_prefix_lists()["PrefixLists"][0]["PrefixListId"]
    port = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1}
    ec2.authorize_security_group_ingress(
        GroupId=one, IpPermissions=[port | {"UserIdGroupPairs": [{"GroupId": two, "Description": "group"}]}]
    )
    ec2.authorize_security_group_egress(
        GroupId=one,
        IpPermissions=[port | {"PrefixListIds": [{"PrefixListId": prefixes, "Description": "list"}]}],
    )
    rules = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [one]}])
    assert {one.get("Description") for one in rules["SecurityGroupRules"]} >= {"group", "list"}


def test_budgets(client: Client) -> None:
    budgets = client("budgets", "us-east-1")
    account = {"AccountId": "123456789012", "BudgetName": "month"}
    notice = {"NotificationType": "ACTUAL", "ComparisonOperator": "GREATER_THAN", "Threshold": 80.0}
    told = [{"SubscriptionType": "SNS", "Address": NO_TOPIC}]
    tags = [{"Key": "a", "Value": "b"}]
    budgets.create_budget(
        AccountId=account["AccountId"],
        Budget={
            "BudgetName": "month",
            "BudgetLimit": {"Amount": "1", "Unit": "USD"},
            "TimeUnit": "MONTHLY",
            "BudgetType": "COST",
        },
        NotificationsWithSubscribers=[{"Notification": notice, "Subscribers": told}],
        ResourceTags=tags,
    )
    find = budgets.describe_subscribers_for_notification
    assert find(**account, Notification=notice)["Subscribers"] == told
    arn = "arn:aws:budgets::123456789012:budget/month"
    assert budgets.list_tags_for_resource(ResourceARN=arn)["ResourceTags"] == tags
    refused(find, "NotFoundException", **account, Notification=notice | {"Threshold": 81.0})
    refused(find, "NotFoundException", **account | {"BudgetName": "none"}, Notification=notice)
    refused(budgets.list_tags_for_resource, "NotFoundException", ResourceARN=f"{arn}x")


def test_caps_of_a_table(client: Client) -> None:
    dynamodb = client("dynamodb")
    caps = {"MaxReadRequestUnits": 10, "MaxWriteRequestUnits": 20}
    dynamodb.create_table(
        TableName="capped",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        OnDemandThroughput=caps,
    )
    assert dynamodb.describe_table(TableName="capped")["Table"]["OnDemandThroughput"] == caps
    more = caps | {"MaxReadRequestUnits": 30}
    answer = dynamodb.update_table(TableName="capped", OnDemandThroughput=more)
    assert answer["TableDescription"]["OnDemandThroughput"] == more


def test_a_service_of_ecs(client: Client) -> None:
    ecs = client("ecs")
    ecs.create_cluster(clusterName="tasks")
    ecs.register_task_definition(
        family="task", containerDefinitions=[{"name": "c", "image": "i", "memory": 1}]
    )
    ecs.create_service(
        cluster="tasks",
        serviceName="worker",
        taskDefinition="task",
        desiredCount=0,
        enableECSManagedTags=True,
        availabilityZoneRebalancing="ENABLED",
    )
    (found,) = ecs.describe_services(cluster="tasks", services=["worker"])["services"]
    assert (found["enableECSManagedTags"], found["availabilityZoneRebalancing"]) == (True, "ENABLED")


def test_tags_of_a_stream(client: Client) -> None:
    kinesis = client("kinesis")
    kinesis.create_stream(StreamName="s", StreamModeDetails={"StreamMode": "ON_DEMAND"}, Tags={"a": "b"})
    assert kinesis.list_tags_for_stream(StreamName="s")["Tags"] == [{"Key": "a", "Value": "b"}]


def test_a_function_keeps_its_dead_letters_and_its_log(client: Client, role: str) -> None:
    functions = client("lambda")
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("handler.py", "")
    given = {
        "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:eu-central-1:123456789012:dead"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"},
    }
    functions.create_function(
        FunctionName="f",
        Runtime="python3.12",
        Handler="handler.f",
        Role=role,
        Code={"ZipFile": code.getvalue()},
        **given,
    )
    found = functions.get_function(FunctionName="f")["Configuration"]
    assert {name: found[name] for name in given} == given
    found = functions.get_function_configuration(FunctionName="f")
    assert {name: found[name] for name in given} == given


def test_an_operation_that_is_not_there_says_so(client: Client) -> None:
    refused(client("redshift").describe_reserved_nodes, "NotEmulated")
    refused(client("stepfunctions").redrive_execution, "NotEmulated", executionArn="arn")


def test_a_request_that_is_sent_again_is_not_done_again(client: Client) -> None:
    def create(invocation: str) -> int:
        request = urllib.request.Request(  # noqa: S310  (the emulator's URL)
            client("redshift-serverless").meta.endpoint_url,
            json.dumps({"namespaceName": "again", "manageAdminPassword": True}).encode(),
            {"X-Amz-Target": "RedshiftServerless.CreateNamespace", "amz-sdk-invocation-id": invocation},
        )
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert [create("one"), create("one"), create("another")] == [200, 200, 400]


def test_the_definition_of_every_stack_is_one(graph: Graph) -> None:
    machines = [one.inputs["definition"] for one in graph.of_kind("sfn.StateMachine")]
    assert machines
    assert [definition_problems(one) for one in machines] == [[]] * len(machines)

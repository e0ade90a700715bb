"""The metrics that AWS publishes of what a stack has, with the dimensions that each comes with.

CloudWatch takes an alarm on a metric that nobody publishes, and is silent for ever: so alarms and the dashboard are
held against these tables. They are what the user guides of the services said in November 2026, at the addresses given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Dimensions = frozenset[str]


def _of(*dimensions: str) -> Dimensions:
    return frozenset(dimensions)


AWS: Final[Mapping[str, Mapping[Dimensions, frozenset[str]]]] = {
    # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-metrics.html and rds-proxy.monitoring.html
    "AWS/RDS": {
        _of("DBInstanceIdentifier"): frozenset(
            {
                "CPUCreditBalance", "CPUCreditUsage", "CPUSurplusCreditBalance", "CPUSurplusCreditsCharged",
                "CPUUtilization", "CheckpointLag", "DBLoad", "DBLoadCPU", "DBLoadNonCPU", "DatabaseConnections",
                "DiskQueueDepth", "EBSByteBalance%", "EBSIOBalance%", "FreeStorageSpace", "FreeableMemory",
                "MaximumUsedTransactionIDs", "NetworkReceiveThroughput", "NetworkTransmitThroughput",
                "OldestReplicationSlotLag", "ReadIOPS", "ReadLatency", "ReadThroughput", "ReplicaLag",
                "ReplicationSlotDiskUsage", "SwapUsage", "TransactionLogsDiskUsage", "TransactionLogsGeneration",
                "WriteIOPS", "WriteLatency", "WriteThroughput",
            }
        ),
        _of("ProxyName"): frozenset(
            {
                "ClientConnections", "ClientConnectionsSetupFailedAuth", "DatabaseConnections",
                "DatabaseConnectionsBorrowLatency", "DatabaseConnectionsCurrentlyBorrowed",
                "DatabaseConnectionsCurrentlySessionPinned", "DatabaseConnectionsSetupFailed",
                "MaxDatabaseConnectionsAllowed", "QueryDatabaseResponseLatency", "QueryRequests",
            }
        ),
        _of("ProxyName", "TargetGroup", "TargetRole"): frozenset({"AvailabilityPercentage"}),
    },
    # https://docs.aws.amazon.com/redshift/latest/mgmt/metrics-listing.html
    "AWS/Redshift": {
        _of("ClusterIdentifier"): frozenset(
            {
                "CPUUtilization", "CommitQueueLength", "ConcurrencyScalingSeconds", "DatabaseConnections",
                "HealthStatus", "MaintenanceMode", "PercentageDiskSpaceUsed", "ReadLatency",
                "RedshiftManagedStorageTotalCapacity", "WriteLatency",
            }
        ),
    },
    # https://docs.aws.amazon.com/redshift/latest/mgmt/serverless-monitoring.html
    "AWS/Redshift-Serverless": {
        _of("Workgroup"): frozenset({"ComputeCapacity", "ComputeSeconds"}),
        _of("DatabaseName", "Workgroup"): frozenset({"DatabaseConnections", "QueriesFailed", "QueriesSucceeded"}),
        _of("Namespace"): frozenset({"DataStorage", "SnapshotStorage"}),
    },
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
    "AWS/DynamoDB": {
        _of(): frozenset({"UserErrors"}),
        _of("TableName"): frozenset(
            {
                "ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits", "OnDemandMaxReadRequestUnits",
                "OnDemandMaxWriteRequestUnits", "ReadThrottleEvents", "TimeToLiveDeletedItemCount",
                "WriteThrottleEvents",
            }
        ),
        _of("TableName", "Operation"): frozenset({"SuccessfulRequestLatency", "SystemErrors", "ThrottledRequests"}),
    },
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    "AWS/Lambda": {
        _of("FunctionName"): frozenset(
            {
                "AsyncEventAge", "AsyncEventsDropped", "AsyncEventsReceived", "ConcurrentExecutions",
                "DeadLetterErrors", "DestinationDeliveryFailures", "Duration", "Errors", "Invocations", "Throttles",
            }
        ),
    },
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
    "AWS/S3": {
        # Only where the bucket has a request metrics configuration of that name.
        _of("BucketName", "FilterId"): frozenset(
            {"4xxErrors", "5xxErrors", "AllRequests", "FirstByteLatency", "TotalRequestLatency"}
        ),
        _of("BucketName", "StorageType"): frozenset({"BucketSizeBytes", "NumberOfObjects"}),
    },
    # https://docs.aws.amazon.com/streams/latest/dev/monitoring-with-cloudwatch.html
    "AWS/Kinesis": {
        _of("StreamName"): frozenset(
            {
                "GetRecords.Bytes", "GetRecords.IteratorAgeMilliseconds", "GetRecords.Latency", "GetRecords.Records",
                "GetRecords.Success", "IncomingBytes", "IncomingRecords", "PutRecord.Success",
                "PutRecords.FailedRecords", "PutRecords.ThrottledRecords", "PutRecords.TotalRecords",
                "ReadProvisionedThroughputExceeded", "WriteProvisionedThroughputExceeded",
            }
        ),
    },
    # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
    "AWS/States": {
        _of("StateMachineArn"): frozenset(
            {
                "ExecutionThrottled", "ExecutionTime", "ExecutionsAborted", "ExecutionsFailed", "ExecutionsStarted",
                "ExecutionsSucceeded", "ExecutionsTimedOut",
            }
        ),
    },
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    "AWS/SQS": {
        _of("QueueName"): frozenset(
            {"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible", "NumberOfMessagesSent"}
        ),
    },
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html
    "AWS/ECS": {_of("ClusterName", "ServiceName"): frozenset({"CPUUtilization", "MemoryUtilization"})},
    # https://docs.aws.amazon.com/vpc/latest/userguide/metrics-dimensions-nat-gateway.html
    "AWS/NATGateway": {
        _of("NatGatewayId"): frozenset(
            {
                "ActiveConnectionCount", "BytesInFromSource", "BytesOutToDestination", "ErrorPortAllocation",
                "PacketsDropCount",
            }
        ),
    },
    # https://docs.aws.amazon.com/sns/latest/dg/sns-monitoring-using-cloudwatch.html
    "AWS/SNS": {
        _of("TopicName"): frozenset(
            {"NumberOfMessagesPublished", "NumberOfNotificationsDelivered", "NumberOfNotificationsFailed"}
        ),
    },
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/monitor_estimated_charges_with_cloudwatch.html
    "AWS/Billing": {_of("Currency"): frozenset({"EstimatedCharges"})},
}  # fmt: skip
"""Namespace → set of dimensions → metrics that have exactly these dimensions."""


_NO_REPLICATION: Final = "nothing is replicated that way"
_ON_DEMAND: Final = "tables are on demand; each has an alarm at its own cap"
RECOMMENDED: Final[Mapping[str, Mapping[str, str | None]]] = {
    "AWS/RDS": {
        "CPUUtilization": None, "DatabaseConnections": None, "DBLoad": None, "EBSByteBalance%": None,
        "EBSIOBalance%": None, "FreeStorageSpace": None, "FreeableMemory": None, "MaximumUsedTransactionIDs": None,
        "ReadLatency": None, "ReplicaLag": None, "SwapUsage": None, "WriteLatency": None,
        "FreeLocalStorage": "of Aurora and of instances with a local disk only",
    },
    "AWS/DynamoDB": {
        "ReadThrottleEvents": None, "SystemErrors": None, "UserErrors": None, "WriteThrottleEvents": None,
        "SuccessfulRequestLatency": (
            "what is normal follows from the operation and from the size of items, which whoever writes them knows;"
            " DynamoDB that is unwell shows in SystemErrors"
        ),
        "AccountProvisionedReadCapacityUtilization": _ON_DEMAND,
        "AccountProvisionedWriteCapacityUtilization": _ON_DEMAND,
        "AgeOfOldestUnreplicatedRecord": _NO_REPLICATION,
        "FailedToReplicateRecordCount": _NO_REPLICATION,
        "ThrottledPutRecordCount": _NO_REPLICATION,
    },
    "AWS/Lambda": {
        "Duration": None, "Errors": None, "Throttles": None,
        "ConcurrentExecutions": "each function has one, reserved: a second is throttled, which rings",
        "ClaimedAccountConcurrency": "of the whole account; what is reserved for a function nobody else can take",
    },
    "AWS/S3": {
        "4xxErrors": None, "5xxErrors": None,
        "OperationsFailedReplication": _NO_REPLICATION,
    },
    "AWS/Kinesis": {
        "GetRecords.IteratorAgeMilliseconds": None, "GetRecords.Success": None, "PutRecord.Success": None,
        "PutRecords.FailedRecords": None, "ReadProvisionedThroughputExceeded": None,
        "WriteProvisionedThroughputExceeded": None,
        "SubscribeToShardEvent.MillisBehindLatest": "nobody reads by enhanced fan-out",
    },
}  # fmt: skip
"""Namespace → metric that AWS recommends an alarm on → why there is none here; None if there is one.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Best_Practice_Recommended_Alarms_AWS_Services.html, of
what a stack has. It has nothing of Redshift and of RDS Proxy.
"""


def published(namespace: str, name: str, dimensions: Dimensions) -> bool:
    """Whether AWS publishes a metric of that name with exactly these dimensions."""
    return name in AWS.get(namespace, {}).get(dimensions, frozenset())

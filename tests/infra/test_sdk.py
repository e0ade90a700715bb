"""Loading of the AWS SDK: what is used, and nothing else of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

CODE = """
import sys
from infra.sdk import load_what_is_used
load_what_is_used()
load_what_is_used()
import pulumi_aws as aws

queue = aws.sqs.Queue
assert "pulumi_aws.sqs.queue" in sys.modules
assert "pulumi_aws.sqs.queue_policy" not in sys.modules
assert aws.sqs.QueueArgs is sys.modules["pulumi_aws.sqs.queue"].QueueArgs
assert aws.s3.BucketLoggingTargetObjectKeyFormatArgs.__module__ == "pulumi_aws.s3._inputs"
assert aws.sqs.get_queue.__module__ == "pulumi_aws.sqs.get_queue"
assert not hasattr(aws.sqs, "NoSuchThing")  # asked for, it loads the whole service
assert "pulumi_aws.sqs.queue_policy" in sys.modules
assert aws.sqs.Queue is queue
from pulumi_aws.sns import Topic
assert Topic.__module__ == "pulumi_aws.sns.topic"
"""


def test_a_name_loads_its_module_and_is_the_same_as_ever() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

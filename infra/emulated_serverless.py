"""Redshift Serverless, of which moto has nothing: namespaces, workgroups and usage limits."""

# ruff: noqa: D102  (each public method is the operation of AWS that its name says)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.moto_api._internal import mock_random

from infra.emulated import is_key, is_role, managed_secret

PREFIX: Final = "RedshiftServerless."
"""Of X-Amz-Target, by which a request is known to be for this service."""

_REGION: Final = re.compile(r"Credential=[^/]+/\d+/([a-z0-9-]+)/")


class _RefusedError(Exception):
    """An error of the service; its name and what it says."""


class RedshiftServerless:
    """The service in all regions, as a WSGI application. What is kept lasts as long as this object."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        """(region, "namespace" | "workgroup" | "usageLimit") → name or id → what it is."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        match = _REGION.search(environ.get("HTTP_AUTHORIZATION", ""))
        operation = re.sub(
            r"(?<!^)([A-Z])", r"_\1", environ["HTTP_X_AMZ_TARGET"].removeprefix(PREFIX)
        ).lower()
        method = getattr(self, operation, None)
        if method is None:
            raise NotImplementedError(f"The {operation} action has not been implemented")
        status, answer = "200 OK", {}
        try:
            answer = method(match[1] if match else "us-east-1", given)
        except _RefusedError as error:
            status, answer = "400 Bad Request", {"__type": error.args[0], "message": error.args[1]}
        body = json.dumps(answer).encode()
        start_response(
            status, [("content-type", "application/x-amz-json-1.1"), ("content-length", str(len(body)))]
        )
        return [body]

    def _of(self, region: str, kind: str) -> dict[str, dict[str, Any]]:
        return self.kept.setdefault((region, kind), {})

    def _get(self, region: str, kind: str, name: str) -> dict[str, Any]:
        found = self._of(region, kind).get(name)
        if found is None:
            raise _RefusedError("ResourceNotFoundException", f"There is no {kind} {name}.")
        return {kind: {key: value for key, value in found.items() if key != "tags"}}

    def _add(self, region: str, kind: str, name: str, made: dict[str, Any]) -> dict[str, Any]:
        if name in self._of(region, kind):
            raise _RefusedError("ConflictException", f"There is a {kind} {name} already.")
        self._of(region, kind)[name] = {"tags": []} | made
        return self._get(region, kind, name)

    def create_namespace(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        """Its roles and keys are to be there."""
        given, name = dict(given), given["namespaceName"]
        managed = given.pop("manageAdminPassword", False)
        if managed == bool(given.pop("adminUserPassword", None)):
            raise _RefusedError(
                "ValidationException", "Either adminUserPassword or manageAdminPassword is needed."
            )
        default = given.get("defaultIamRoleArn")
        for arn in [*given.get("iamRoles", []), *filter(None, [default])]:
            if not is_role(DEFAULT_ACCOUNT_ID, arn):
                raise _RefusedError("ValidationException", f"There is no role {arn}.")
        for key in ("kmsKeyId", "adminPasswordSecretKmsKeyId"):
            if key in given and not is_key(DEFAULT_ACCOUNT_ID, given[key]):
                raise _RefusedError("ValidationException", f"{key}: there is no key {given[key]}.")
        made = given | {"namespaceId": (its := str(mock_random.uuid4())), "status": "AVAILABLE"}
        made["namespaceArn"] = f"arn:aws:redshift-serverless:{region}:{DEFAULT_ACCOUNT_ID}:namespace/{its}"
        if managed and name not in self._of(region, "namespace"):
            user, secret_key = given.get("adminUsername", "admin"), given.get("adminPasswordSecretKmsKeyId")
            made["adminPasswordSecretArn"] = managed_secret(
                DEFAULT_ACCOUNT_ID, region, name, user, secret_key
            )
        return self._add(region, "namespace", name, made)

    def get_namespace(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        return self._get(region, "namespace", given["namespaceName"])

    def create_workgroup(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        """Its namespace, subnets and security groups are to be there; a namespace has one workgroup."""
        name, namespace = given["workgroupName"], given["namespaceName"]
        self._get(region, "namespace", namespace)
        if any(one["namespaceName"] == namespace for one in self._of(region, "workgroup").values()):
            raise _RefusedError("ConflictException", f"The namespace {namespace} has a workgroup already.")
        ec2 = ec2_backends[DEFAULT_ACCOUNT_ID][region]
        there: dict[str, Collection[str]] = {
            "subnetIds": {one.id for one in ec2.describe_subnets()},
            "securityGroupIds": {one.id for one in ec2.describe_security_groups()},
        }
        for key, known in there.items():
            if missing := [one for one in given.get(key, []) if one not in known]:
                raise _RefusedError("ValidationException", f"{key}: there is no {missing[0]}.")
        its, port = str(mock_random.uuid4()), given.get("port", 5439)
        address = f"{name}.{DEFAULT_ACCOUNT_ID}.{region}.redshift-serverless.amazonaws.com"
        made = {"port": port, "trackName": "current"} | given
        made |= {
            "workgroupId": its,
            "workgroupArn": f"arn:aws:redshift-serverless:{region}:{DEFAULT_ACCOUNT_ID}:workgroup/{its}",
            "status": "AVAILABLE",
            "endpoint": {"address": address, "port": port, "vpcEndpoints": []},
        }
        return self._add(region, "workgroup", name, made)

    def get_workgroup(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        return self._get(region, "workgroup", given["workgroupName"])

    def create_usage_limit(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        """Of a workgroup or a namespace that is there."""
        self._tagged(region, given["resourceArn"])
        same = ("resourceArn", "usageType", "period")
        made = {"period": "monthly", "breachAction": "log"} | given
        if any(all(one[key] == made[key] for key in same) for one in self._of(region, "usageLimit").values()):
            raise _RefusedError("ConflictException", "There is such a usage limit already.")
        made["usageLimitId"] = its = str(mock_random.uuid4())
        made["usageLimitArn"] = f"arn:aws:redshift-serverless:{region}:{DEFAULT_ACCOUNT_ID}:usagelimit/{its}"
        return self._add(region, "usageLimit", its, made)

    def get_usage_limit(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        return self._get(region, "usageLimit", given["usageLimitId"])

    def list_tags_for_resource(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        return {"tags": self._tagged(region, given["resourceArn"])["tags"]}

    def _tagged(self, region: str, arn: str) -> dict[str, Any]:
        for kind in ("namespace", "workgroup"):
            for one in self._of(region, kind).values():
                if one[f"{kind}Arn"] == arn:
                    return one
        raise _RefusedError("ResourceNotFoundException", f"There is no {arn}.")

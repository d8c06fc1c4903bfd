"""What one client costs the API server, by its own count: the requests of an account, told apart by a FlowSchema.

A watch counts once, when it begins.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator

from testbed.kubernetes.api import Api

_NAME = "bench-account"
_PATH = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
_COUNTED = re.compile(r"^apiserver_flowcontrol_dispatched_requests_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.M)


@contextlib.contextmanager
def counted(api: Api, namespace: str, account: str) -> Generator[None]:
    """Within the block `requests` tells of this account alone. What it may do stays as it is."""
    who = {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": account}}
    every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": _NAME},
        "spec": {
            "matchingPrecedence": 100,
            "priorityLevelConfiguration": {"name": "workload-low"},  # where all accounts are by default
            "rules": [{"subjects": [who], "resourceRules": [every]}],
        },
    }
    api.create(_PATH, schema)
    try:
        yield
    finally:
        api.delete(f"{_PATH}/{_NAME}")


def requests(api: Api) -> float:
    """How many there were since the server's start."""
    return requests_in(api.get("/metrics", timeout_s=30.0).decode())


def requests_in(page: str) -> float:
    """Of the server's metrics in Prometheus' text format."""
    found = _COUNTED.finditer(page)
    return sum(float(each["count"]) for each in found if f'flow_schema="{_NAME}"' in each["labels"])

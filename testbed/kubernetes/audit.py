"""What pods asked of the API server, in the order in which it answered: who wrote what, and who had which Lease then.

It is the server's own audit log. A token says of which pod it is, so two controllers of one account are told apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from testbed.commands import BedError
from testbed.kubernetes.bed import KubeBed

_WRITES = ["create", "update", "patch", "delete", "deletecollection"]
_ACCOUNTS = "system:serviceaccounts"
_LEASES = {"group": "coordination.k8s.io", "resources": ["leases"]}
_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "namespaces": ["kube-system", "kube-node-lease"]},
        {"level": "None", "userGroups": [f"{_ACCOUNTS}:kube-system", "system:nodes"]},
        {"level": "Request", "verbs": ["get", *_WRITES], "resources": [_LEASES]},  # whoever it is
        {"level": "Metadata", "verbs": _WRITES, "userGroups": [_ACCOUNTS]},
    ],
}
_MOST_MB = "100"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was answered: `began` and `ended` are the server's own times, `pod` is empty for who is none,
    and `holder` is what a write of a Lease said."""

    pod: str
    verb: str
    resource: str
    name: str
    status: int
    began: datetime
    ended: datetime
    holder: str = ""

    @property
    def writes(self) -> bool:
        """Whether it changed something."""
        return self.verb in _WRITES and self.status < 300


def audit_settings(bed: KubeBed) -> dict[str, str]:
    """The API server's."""
    policy = bed.directory / "audit.json"
    policy.write_text(json.dumps(_POLICY))
    return {
        "audit-policy-file": str(policy),
        "audit-log-path": str(_log(bed)),
        "audit-log-maxsize": _MOST_MB,
        "audit-log-maxbackup": "1",
    }


def forget_audit(bed: KubeBed) -> None:
    """Removes what was written."""
    for path in bed.directory.glob("audit*.log"):
        path.unlink()


class Audit:
    """What was asked in one namespace, since this was made."""

    def __init__(self, bed: KubeBed, namespace: str) -> None:
        self._path, self._namespace = _log(bed), namespace
        if not self._path.exists():
            raise BedError(f"{self._path}: the bed was started without; start it anew: down, up")
        self._at = self._path.stat().st_size
        self._asked: list[Asked] = []

    def asked(self) -> list[Asked]:
        """All so far."""
        self._asked += self._more()
        return self._asked

    def _more(self) -> Iterator[Asked]:
        if self._path.stat().st_size < self._at:
            raise BedError(f"{self._path} began anew meanwhile")
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # the rest of it comes
                self._at += len(line)
                event = json.loads(line)
                if event.get("objectRef", {}).get("namespace") == self._namespace:
                    yield _asked(event)


def _asked(event: dict[str, Any]) -> Asked:
    about: dict[str, Any] = event["objectRef"]
    pods: list[str] = event["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name", [""])
    told: dict[str, Any] = event.get("requestObject") or {}
    return Asked(
        pod=pods[0],
        verb=event["verb"],
        resource=about["resource"],
        name=about.get("name") or told.get("metadata", {}).get("name", ""),
        status=event.get("responseStatus", {}).get("code", 0),
        began=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        ended=datetime.fromisoformat(event["stageTimestamp"]),
        holder=told.get("spec", {}).get("holderIdentity") or "",
    )


def _log(bed: KubeBed) -> Path:
    return bed.directory / "audit.log"

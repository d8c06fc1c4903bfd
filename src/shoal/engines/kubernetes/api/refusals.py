"""The API server's errors in Shoal's tree: what it said, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from shoal.errors import Conflict, EngineError, EngineUnavailable

ALREADY_EXISTS = "AlreadyExists"  # a reason


class KubernetesError(EngineError):
    """The API server refused. `status` is HTTP's, `reason` the API's word for it (`Forbidden`), `said` its message."""

    def __init__(self, message: str, *, status: int, reason: str, said: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.said = said

    @property
    def lacks_right(self) -> bool:
        """Whether it is RBAC that refused, and who asked that it lacks a right."""
        return self.status == 403 and bool(_right(self.said))


class KubernetesUnavailable(KubernetesError, EngineUnavailable):
    """It answers, but can't serve now: its etcd is away, it is starting, or it is flooded."""


class KubernetesConflict(KubernetesError, Conflict):
    """Somebody else changed, owns or made the object."""


_NOTHING: Mapping[str, Any] = {}
_AWAY = r"etcdserver|deadline exceeded|timed out|leader changed"
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"exceeded quota", "`kubectl describe quota` shows what is used; ask for less, or let the quota be raised"),
    (r"failed quota: .*must specify", "in the file `resources` of an agent says what it requests, and "
     "`resources.memory` is its limit of memory too; what no file says, limits of CPU and those of Shoal's own pods, "
     "has to come from a LimitRange with defaults in this namespace"),
    (r"violates PodSecurity", "ask for less in the file (`user`, `cap_add`, `volumes` that name a path of the host), "
     "or let the namespace's label `pod-security.kubernetes.io/enforce` allow it"),
    (r"attempting to grant RBAC permissions not currently held", "nobody may give the controller rights that he does "
     "not have: let who has these run `shoal up` the first time"),
    (r"is being terminated", "the namespace is going away: wait until it is gone, or name another one"),
    (r"namespaces .* not found", "the namespace is gone; `shoal up` makes it where you may do that"),
    (r"admission webhook .* denied|AdmissionPolicy .* denied",
     "an admission controller of this cluster refuses it: change what it names, or ask "
     "who runs it"),
    (r"denied the request|is forbidden: .*(?:maximum|minimum) ", "a policy of this namespace (LimitRange, admission "
     "policy) refuses it: `kubectl describe limitrange` shows the limits"),
    (r'(?:secret|configmap) "[^"]+" not found', "`shoal up` puts it back"),
    (r"field is immutable|updates to statefulset spec", "it can't be changed in place: `shoal down` and `shoal up` make"
     " it anew, or take the change back"),
    (r"Unauthorized|must be logged in", "your credentials are not accepted: log in again, or look at the user of this "
     "context in the kubeconfig"),
)  # fmt: skip


def remedy_for(said: str) -> str:
    """What to do about something that the API server says, in an answer or in an event; may be empty."""
    for words, remedy in _REMEDIES:
        if re.search(words, said, re.IGNORECASE):
            return remedy
    return ""


def refusal(server: str, asked: str, status: int, answer: Any) -> KubernetesError:
    """The error for an answer: `asked` is verb and object, `answer` its JSON or text."""
    told: Mapping[str, Any] = cast("Mapping[str, Any]", answer) if isinstance(answer, dict) else _NOTHING
    said = str(
        told.get("message") or (answer if isinstance(answer, str) else "") or f"status {status} without a reason"
    ).strip()
    reason = str(told.get("reason") or "")
    kind = KubernetesError
    if status == 409:
        kind = KubernetesConflict
        owners = _owners(told)
        if owners:
            message = (
                f"{asked}: {', '.join(f'{field} belongs to {owner}' for owner, field in owners)}; let go of it there, "
                "or take it out of what Shoal is told"
            )
            return kind(message, status=status, reason=reason, said=said)
    elif status in (429, 502, 503, 504) or (status == 500 and re.search(_AWAY, said)):
        kind = KubernetesUnavailable
    remedy = _right(said) if status == 403 else ""
    remedy = remedy or remedy_for(said)
    message = f"Kubernetes at {server} refused {asked}: {said.rstrip('.')}{f' ({remedy})' if remedy else ''}"
    return kind(message, status=status, reason=reason, said=said)


def _owners(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a server-side apply that met another one's fields: by whom they were set, and which."""
    details: Mapping[str, Any] = told.get("details") or {}
    causes: list[Mapping[str, str]] = details.get("causes") or []
    return [
        (_owner(str(cause.get("message", ""))), str(cause.get("field", "")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]


def _owner(said: str) -> str:
    """`conflict with "kubectl" using apps/v1`: kubectl."""
    found = re.search(r'"([^"]+)"', said)
    return found[1] if found else said


def _right(said: str) -> str:
    """Which right is missing, as a rule of RBAC says it."""
    found = re.search(r'User "([^"]+)" cannot (\w+) resource "([^"]+)" in API group "([^"]*)"', said)
    if found is None:
        return ""
    user, verb, resource, group = found.groups()
    return (
        f"{user} lacks the right to {verb} {resource}{f'.{group}' if group else ''} here: let a Role with that verb be "
        "bound to it"
    )

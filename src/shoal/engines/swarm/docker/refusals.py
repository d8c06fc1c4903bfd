"""Docker's errors in Shoal's tree: what the daemon said, and what to do about it.

The daemon tells its reasons in words alone (many of them as status 500), so that its words are what there is to go by.
"""

from __future__ import annotations

import re

from shoal.errors import EngineError, EngineUnavailable


class DockerError(EngineError):
    """The daemon refused. `status` is HTTP's; `reason` is what the daemon said, without Shoal's words around it."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class DockerUnavailable(DockerError, EngineUnavailable):
    """The daemon answers, its Swarm does not: not in one, no manager, locked, or without a leader."""


OUT_OF_SEQUENCE = "update out of sequence"

_RPC_PREFIX = re.compile(r"^(rpc error: code = \w+ desc = )+")

# Of these the daemon's Swarm can say nothing at all, whatever was asked.
_UNAVAILABLE: tuple[tuple[str, str], ...] = (
    (
        r"worker nodes can't be used",
        "name one of the Swarm's managers, by DOCKER_HOST or a Docker context: `docker info` on this node lists them "
        "under `Manager Addresses`",
    ),
    (r"not a swarm manager|not part of a swarm", "`docker swarm init` makes a Swarm of this machine alone"),
    (
        r"does not have a leader|too few managers|no elected primary|raft: (?:stopped|proposal dropped)",
        "more than half of the managers have to be up: start those that are down; if they are lost for good, "
        "`docker swarm init --force-new-cluster` on one that is left",
    ),
    (r"needs to be unlocked", "`docker swarm unlock`, with the key that `docker swarm init --autolock` gave"),
    (r"swarm is (?:still )?(?:starting|restarting)|context deadline exceeded", "try again in a few seconds"),
)

_REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"no such image|manifest (?:for .* )?(?:unknown|not found)|pull access denied|repository .* not found"
        r"|image .* could not be accessed",
        "push the image to a registry that every node reaches, and name its password under `registries` if it asks for "
        "one; or load it on each node (`docker save` and `docker load`)",
    ),
    (
        r"port\b.*already in use|port is already allocated|address already in use",
        "`docker service ls` shows who has the port; choose another one, or remove that service",
    ),
    (
        r"name conflicts with an existing object|already exists",
        "somebody else made one of this name: remove it, or name the fleet otherwise",
    ),
    (r"client sent an http request to an https server", "set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH"),
    (r"no suitable node", "`docker node ls` shows the nodes; free one, add one, or ask for less"),
    (r"permission denied while trying to connect", "let your user use Docker there: its group is mostly `docker`"),
)


def remedy_for(reason: str) -> str:
    """What to do about something that Docker says, in an answer or in a task's `Status.Err`; may be empty."""
    for words, remedy in _UNAVAILABLE + _REMEDIES:
        if re.search(words, reason, re.IGNORECASE):
            return remedy
    return ""


def refusal(host: str, asked: str, status: int, reason: str) -> DockerError:
    """The error for an answer: `asked` is method and path."""
    reason = _RPC_PREFIX.sub("", reason.strip()) or f"status {status} without a reason"
    remedy = remedy_for(reason)
    message = f"Docker at {host} refused {asked}: {reason.rstrip('.')}{f' ({remedy})' if remedy else ''}"
    # Docker tells it with 403, 500 or 503, by the path.
    unavailable = any(re.search(words, reason, re.IGNORECASE) for words, _ in _UNAVAILABLE)
    return (DockerUnavailable if unavailable else DockerError)(message, status=status, reason=reason)

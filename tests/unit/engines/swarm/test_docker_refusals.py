"""What Docker refuses is told in its own words, with what to do."""

from __future__ import annotations

import pytest

from shoal.engines.swarm.docker import DockerError, DockerUnavailable, remedy_for
from shoal.engines.swarm.docker.refusals import refusal
from shoal.errors import EngineError, EngineUnavailable

NO_SWARM = 'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'  # noqa: E501 - Docker's own words
WORKER = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."  # noqa: E501 - Docker's own words
NO_LEADER = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."  # noqa: E501 - Docker's own words
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (503, NO_SWARM, "docker swarm init"),
        (403, NO_SWARM, "docker swarm init"),
        (503, WORKER, "name one of the Swarm's managers"),
        (500, NO_LEADER, "more than half of the managers"),
        (503, LOCKED, "docker swarm unlock"),
    ],
)
def test_a_swarm_that_does_not_answer_is_unavailable(status: int, reason: str, remedy: str):
    error = refusal("unix:///run/d.sock", "GET /services", status, reason)
    assert isinstance(error, DockerUnavailable)
    assert isinstance(error, EngineUnavailable)
    assert error.status == status
    assert remedy in str(error)


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (404, "No such image: acme/web:1", "push the image to a registry"),
        (404, "pull access denied for acme/web, repository does not exist", "`registries`"),
        (
            400,
            "rpc error: code = InvalidArgument desc = port '80' is already in use by service 'x' as an ingress port",
            "docker service ls",
        ),
        (
            409,
            "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web",
            "remove it",
        ),
        (400, "Client sent an HTTP request to an HTTPS server.", "DOCKER_TLS_VERIFY"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, reason: str, remedy: str):
    error = refusal("tcp://far:2375", "POST /services/create", status, reason)
    assert isinstance(error, EngineError)
    assert not isinstance(error, EngineUnavailable)
    assert "tcp://far:2375 refused POST /services/create" in str(error)
    assert remedy in str(error)


def test_words_of_grpc_are_left_out():
    error = refusal("d", "POST /x", 400, "rpc error: code = InvalidArgument desc = rpc error: code = X desc = bad name")
    assert str(error) == "Docker at d refused POST /x: bad name"
    assert error.reason == "bad name"


def test_a_refusal_without_words_tells_its_status():
    error = refusal("d", "GET /x", 500, "")
    assert isinstance(error, DockerError)
    assert str(error) == "Docker at d refused GET /x: status 500 without a reason"


@pytest.mark.parametrize(
    ("err", "remedy"),
    [
        ("No such image: sha256:12", "load it on each node"),
        ("no suitable node (host-mode port already in use on 3 nodes)", "docker service ls"),
        ("no suitable node (insufficient resources on 3 nodes)", "docker node ls"),
        ("task: non-zero exit (1)", ""),
    ],
)
def test_a_tasks_error_has_a_remedy_too(err: str, remedy: str):
    assert remedy in remedy_for(err)
    assert bool(remedy) == bool(remedy_for(err))

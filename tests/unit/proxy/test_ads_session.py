"""The state of the world, step by step: what Envoy says, what it is sent, and when it has agreed."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.proxy.ads_session import ORDER, AdsSession, Published, Response
from shoal.proxy.messages import ASSIGNMENT, CLUSTER, LISTENER, ROUTES


class Envoy:
    """Plays Envoy: subscribes to what it is told to have, agrees to everything but `refused`."""

    def __init__(self) -> None:
        self.session = AdsSession()
        self.has: dict[str, dict[str, bytes]] = {type_url: {} for type_url in ORDER}
        self.sent: list[Response] = []
        self.refused = b""
        self.session.receive(CLUSTER, (), "", "")
        self.session.receive(LISTENER, (), "", "")

    def exchange(self, published: Published) -> list[Response]:
        """Until nothing more is said."""
        said: list[Response] = []
        while batch := list(self.session.responses(published)):
            for response in batch:
                said.append(response)
                self._take(response)
        return said

    def _take(self, response: Response) -> None:
        error = "no" if self.refused in response.resources.values() else ""
        if not error and response.type_url in (CLUSTER, LISTENER):
            self.has[response.type_url] = dict(response.resources)
        elif not error:
            self.has[response.type_url] |= response.resources
        names = self._names(response.type_url)
        self.session.receive(response.type_url, names, response.nonce, error)
        follower = {CLUSTER: ASSIGNMENT, LISTENER: ROUTES}.get(response.type_url)
        if follower is not None:
            wanted = self._names(follower)
            self.has[follower] = {name: body for name, body in self.has[follower].items() if name in wanted}
            self.session.receive(follower, wanted, "", "")

    def _names(self, type_url: str) -> tuple[str, ...]:
        source = {ASSIGNMENT: CLUSTER, ROUTES: LISTENER}.get(type_url)
        return tuple(self.has[source]) if source else ()


def published(version: int, clusters: Mapping[str, bytes], routes: bytes = b"r") -> Published:
    return Published(
        version,
        {
            CLUSTER: clusters,
            ASSIGNMENT: {name: b"endpoints of " + name.encode() for name in clusters},
            LISTENER: {"public": b"l"},
            ROUTES: {"public": routes},
        },
    )


def kinds(said: list[Response]) -> list[str]:
    return [response.type_url for response in said]


def test_clusters_come_before_endpoints_and_listeners_before_routes() -> None:
    envoy, first = Envoy(), published(1, {"a": b"1"})
    said = kinds(envoy.exchange(first))
    assert said.index(CLUSTER) < said.index(ASSIGNMENT)
    assert said.index(LISTENER) < said.index(ROUTES)
    assert envoy.session.settled(first)


def test_a_changed_cluster_is_told_its_endpoints_again() -> None:
    """Or it would warm for 15 seconds."""
    envoy = Envoy()
    envoy.exchange(published(1, {"a": b"1", "b": b"1"}))
    said = envoy.exchange(published(2, {"a": b"2", "b": b"1"}))
    assert kinds(said) == [CLUSTER, ASSIGNMENT]
    assert set(said[1].resources) == {"a"}


def test_a_change_of_routes_sends_routes_alone() -> None:
    envoy = Envoy()
    envoy.exchange(published(1, {"a": b"1"}))
    assert kinds(envoy.exchange(published(2, {"a": b"1"}, b"other"))) == [ROUTES]


def test_a_cluster_goes_only_once_no_route_leads_there() -> None:
    envoy = Envoy()
    envoy.exchange(published(1, {"a": b"1", "b": b"1"}))
    after = published(2, {"b": b"1"}, b"without a")
    assert kinds(envoy.exchange(after)) == [ROUTES, CLUSTER]
    assert set(envoy.has[CLUSTER]) == {"b"}
    assert envoy.session.settled(after)


def test_nothing_is_settled_before_envoy_has_asked_for_the_endpoints() -> None:
    session, first = AdsSession(), published(1, {"a": b"1"})
    session.receive(CLUSTER, (), "", "")
    (response,) = session.responses(first)
    session.receive(CLUSTER, (), response.nonce, "")
    assert not session.settled(first)


def test_what_is_refused_is_not_sent_again_until_it_changes() -> None:
    envoy = Envoy()
    envoy.exchange(published(1, {"a": b"1"}))
    envoy.refused = b"bad"
    bad = published(2, {"a": b"1"}, b"bad")
    envoy.exchange(bad)
    assert not envoy.session.settled(bad)
    assert envoy.session.error(bad) == "RouteConfiguration: no"
    assert envoy.exchange(bad) == []
    assert envoy.has[ROUTES]["public"] == b"r"
    good = published(3, {"a": b"1"}, b"good")
    envoy.exchange(good)
    assert envoy.session.settled(good)
    assert envoy.session.error(good) == ""


def test_a_refused_listener_is_offered_again_when_told_to() -> None:
    envoy, first = Envoy(), published(1, {})
    envoy.refused = b"l"
    envoy.exchange(first)
    assert envoy.session.error(first) == "Listener: no"
    envoy.refused = b""
    envoy.session.retry_listeners()
    envoy.exchange(first)
    assert envoy.session.settled(first)


VERSIONS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2"])), st.sampled_from([b"x", b"y"])),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(VERSIONS)
def test_envoy_ends_with_what_was_published_last(versions: list[tuple[dict[str, bytes], bytes]]) -> None:
    envoy = Envoy()
    for number, (clusters, routes) in enumerate(versions, 1):
        now = published(number, clusters, routes)
        envoy.exchange(now)
        assert envoy.session.settled(now)
        assert {type_url: envoy.has[type_url] for type_url in ORDER} == now.resources

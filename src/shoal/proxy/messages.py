"""Envoy's protobuf messages, without a package of generated code.

`xds-protos` and the wheel of Envoy itself both own `envoy/__init__.py`, so the descriptors that we need are packed at
development time (tools/build_descriptors.py) and loaded here into a pool of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, cast

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from shoal.errors import GatewayError

Json = Mapping[str, Any]

TYPE_PREFIX = "type.googleapis.com/"
CLUSTER = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ASSIGNMENT = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTES = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"


@cache
def _pool() -> DescriptorPool:
    packed = descriptor_pb2.FileDescriptorSet()
    packed.ParseFromString(files("shoal.proxy").joinpath("descriptors.binpb").read_bytes())
    pool = DescriptorPool()
    for file in packed.file:
        pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    return pool


@cache
def message_class(name: str) -> type[Any]:
    """The class of a message by its full name. A message of another pool's class can't be put into one of these."""
    return cast("type[Any]", message_factory.GetMessageClass(_pool().FindMessageTypeByName(name)))


class Encoder:
    """Turns rendered values into serialised messages, and remembers by identity those of the last time.

    What the renderer gives again unchanged costs a comparison of identities; of a route configuration, which holds the
    routes of many agents, only the routes that changed are encoded anew.
    """

    def __init__(self) -> None:
        self._whole: dict[str, dict[str, tuple[Json, bytes]]] = {}  # by type URL, then name
        self._routes: dict[int, tuple[Json, bytes]] = {}

    def encode_all(self, type_url: str, resources: Mapping[str, Json]) -> dict[str, bytes]:
        """Serialised messages by name. Raises GatewayError if a value does not fit the message."""
        before = self._whole.get(type_url, {})
        kept: dict[str, tuple[Json, bytes]] = {}
        changed = len(before) != len(resources)
        for name, value in resources.items():
            known = before.get(name)
            if known is None or known[0] is not value:
                known = (value, self._encode_routes(value) if type_url == ROUTES else encode(type_url, value))
                changed = True
            kept[name] = known
        self._whole[type_url] = kept
        if type_url == ROUTES and changed:
            self._forget_routes(resources)
        return {name: known[1] for name, known in kept.items()}

    def _encode_routes(self, value: Json) -> bytes:
        hosts: list[Json] = [{**host, "routes": []} for host in value["virtual_hosts"]]
        bare: Json = {**value, "virtual_hosts": hosts}
        message = _parse(ROUTES, bare)
        for host, target in zip(value["virtual_hosts"], message.virtual_hosts, strict=True):
            for route in host.get("routes", ()):
                known = self._routes.get(id(route))
                if known is None or known[0] is not route:
                    known = self._routes[id(route)] = (route, encode("envoy.config.route.v3.Route", route))
                target.routes.add().ParseFromString(known[1])
        return cast("bytes", message.SerializeToString())

    def _forget_routes(self, resources: Mapping[str, Json]) -> None:
        used = {
            id(route)
            for value in resources.values()
            for host in value["virtual_hosts"]
            for route in host.get("routes", ())
        }
        self._routes = {key: entry for key, entry in self._routes.items() if key in used}


def encode(type_url: str, value: Json) -> bytes:
    """One value as a serialised message of the type (a URL or a full name)."""
    return cast("bytes", _parse(type_url, value).SerializeToString())


def _parse(type_url: str, value: Json) -> Any:
    message: Message = message_class(type_url.removeprefix(TYPE_PREFIX))()
    try:
        json_format.ParseDict(dict(value), message, descriptor_pool=_pool())
    except json_format.ParseError as error:
        raise GatewayError(f"rendered a {type_url.rpartition('.')[2]} that is not one: {error}") from error
    return message

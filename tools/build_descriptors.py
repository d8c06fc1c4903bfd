"""Packs the protobuf descriptors of the Envoy messages that Shoal uses into src/shoal/proxy/descriptors.binpb.

A development tool: the package `xds-protos` owns `envoy/__init__.py`, as the wheel of Envoy itself does, so the two
can't live in one environment. Run it with an environment of its own, after an update of Envoy:

    python3 -m venv /tmp/xds && /tmp/xds/bin/pip install xds-protos && /tmp/xds/bin/python tools/build_descriptors.py
"""

from __future__ import annotations

import importlib
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

TARGET = Path(__file__).parents[1] / "src/shoal/proxy/descriptors.binpb"

FILES = (
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/type/matcher/v3/http_inputs.proto",
    "xds/type/matcher/v3/matcher.proto",
)


def pack(names: tuple[str, ...]) -> descriptor_pb2.FileDescriptorSet:
    """The files and all that they import, each after what it imports."""
    packed = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(packed.file.add())

    for name in names:
        importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
        add(descriptor_pool.Default().FindFileByName(name))
    return packed


def main() -> None:
    packed = pack(FILES)
    TARGET.write_bytes(packed.SerializeToString())
    print(f"{TARGET}: {len(packed.file)} files, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

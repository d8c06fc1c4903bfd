"""Envoy as one writes it down by hand, with as little as possible: what the gateway is held against.

One listener, one static cluster; no retries, no health checks, no access log, nothing that changes while it runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.live_fleet import free_port, process, temporary_directory, wait_listening
from shoal.proxy.envoy import envoy_binary

_FILTERS = "type.googleapis.com/envoy.extensions.filters"


@dataclass(frozen=True, slots=True)
class PlainEnvoy:
    """Where it listens, and the file that its command line names."""

    port: int
    configuration: Path


@contextlib.contextmanager
def plain_envoy(upstream: tuple[str, int], concurrency: int) -> Generator[PlainEnvoy]:
    """It, while it runs with so many threads in front of the upstream."""
    port = free_port()
    with temporary_directory() as directory:
        path = directory / "plain.json"
        path.write_text(json.dumps(configuration(port, upstream)))
        with process(_command(path, concurrency)):
            wait_listening(port)
            yield PlainEnvoy(port, path)


def configuration(port: int, upstream: tuple[str, int]) -> dict[str, Any]:
    """The whole of its file."""
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": _address("127.0.0.1", port), "filter_chains": [{"filters": filters}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(*upstream)}}]}]
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "upstream", "endpoints": endpoints},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _command(path: Path, concurrency: int) -> list[str]:
    return [
        str(envoy_binary()), "-c", str(path), "--concurrency", str(concurrency), "--disable-hot-restart", "-l", "off"
    ]  # fmt: skip

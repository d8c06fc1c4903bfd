"""The line between the controller and a gateway: one gRPC stream, JSON messages, a version of the protocol.

The gateway calls, says who it is, and is told the snapshot; from then on changes go down, and acknowledgements and
statistics go up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal.core.routing import Traffic
from shoal.proxy.codec import PROTOCOL

SERVICE = "shoal.gateway.v1.Line"
METHOD = "Connect"
PATH = f"/{SERVICE}/{METHOD}"

LET_IN = (("shoal-let-in", "1"),)  # the stream's first metadata, once the controller has agreed to the hello

# A peer that vanished without a word is noticed within this time; over a Unix socket it is noticed at once.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)


@dataclass(frozen=True, slots=True)
class EnvoyEnd:
    """An Envoy that ended by itself: when (epoch seconds), and how in words."""

    at: float
    how: str


@dataclass(frozen=True, slots=True)
class Report:
    """Upwards. Of the traffic only what changed since the last report; `acknowledged` is a version of this stream,
    `refused` Envoy's words on the version `received` (empty: it refuses nothing). `gone` are agents of which there is
    nothing to count now. `ends` are the last of the gateway's Envoys that ended by themselves."""

    name: str = ""
    protocol: int = PROTOCOL
    acknowledged: int = 0
    received: int = 0
    refused: str = ""
    traffic: Mapping[str, Traffic] = field(default_factory=dict[str, Traffic])
    gone: tuple[str, ...] = ()
    ends: tuple[EnvoyEnd, ...] = ()

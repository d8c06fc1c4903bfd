"""One JSON line a request, and the two names by which a request is found again in the agents' own logs and traces."""

from __future__ import annotations

from shoal.proxy.messages import TYPE_PREFIX, Json

_FILE = "envoy.extensions.access_loggers.file.v3.FileAccessLog"


def render_access_log(path: str, listener: str) -> Json:
    """Without the query, which may hold secrets; Envoy leaves out nothing: what is not there is `null`."""
    line = {
        "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "listener": listener,
        "client": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD):16%",
        "host": "%REQ(:AUTHORITY):256%",
        "path": "%PATH(NQ:ORIG)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "agent": "%ROUTE_NAME%",
        "replica": "%UPSTREAM_HOST_NAME_WITHOUT_PORT%",
        "duration_ms": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "request_id": "%REQ(X-REQUEST-ID):128%",
        "traceparent": "%REQ(TRACEPARENT):64%",
    }
    config = {"@type": TYPE_PREFIX + _FILE, "path": path, "log_format": {"json_format": line}}
    return {"name": "envoy.access_loggers.file", "typed_config": config}


# Of the time and of the request's random id: Envoy makes trace ids only for a tracer of its own. The random part comes
# first among the lower 64 bits, by which samplers decide. Its parent is a span that nobody records.
_RANDOM = "%REQ(X-REQUEST-ID):8%"
_MICROS = "%START_TIME(%6f)%"
ADDED_HEADERS: tuple[Json, ...] = (
    {
        "header": {
            "key": "traceparent",
            "value": f"00-%START_TIME(%s)%{_MICROS}{_RANDOM}%START_TIME(%3f)%00000-{_RANDOM}{_MICROS}00-00",
        },
        "append_action": "ADD_IF_ABSENT",
    },
)

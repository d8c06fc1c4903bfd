"""What is said over the WebSocket of `/v1/exec`, on both sides.

Binary messages: a byte that tells the stream (0 input, 1 output, 2 errors), then its content. Text messages are JSON:
`{"end_input": true}` and `{"resize": {"rows": 24, "columns": 80}}` to the command; `{"exit_code": 0}` or
`{"error": "..."}` from it, as the last one.
"""

from __future__ import annotations

STDIN, STDOUT, STDERR = "stdin", "stdout", "stderr"
_STREAMS = (STDIN, STDOUT, STDERR)


def render_channel(stream: str, content: bytes) -> bytes:
    """One binary message."""
    return bytes([_STREAMS.index(stream)]) + content


def parse_channel(message: bytes) -> tuple[str, bytes]:
    """Stream and content. Raises ValueError."""
    if not message or message[0] >= len(_STREAMS):
        raise ValueError(f"{message[:1]!r} is no stream of a command")
    return _STREAMS[message[0]], message[1:]

"""A connection through an HTTP proxy, such as a bastion's, for what speaks its own TLS or HTTP over it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from urllib.parse import unquote, urlsplit

from shoal.errors import EngineUnavailable
from shoal.http1 import HEAD_LIMIT_BYTES, ProtocolError, Streams, read_head


async def open_tunnel(proxy: str, host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None) -> Streams:
    """To `host`, with TLS where `tls` is given; a proxy that is reached by https is trusted as the host is. Raises
    OSError, and EngineUnavailable where the proxy refuses."""
    parts = urlsplit(proxy)
    secure = parts.scheme == "https"
    streams = await asyncio.open_connection(
        parts.hostname,
        parts.port or (443 if secure else 80),
        ssl=(tls or ssl.create_default_context()) if secure else None,
        limit=HEAD_LIMIT_BYTES,
    )
    try:
        await _connect(streams, proxy, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        if tls is not None:
            await streams[1].start_tls(tls, server_hostname=server_name or host)
    except BaseException:
        streams[1].transport.abort()
        raise
    return streams


async def _connect(streams: Streams, proxy: str, target: str) -> None:
    parts = urlsplit(proxy)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}")
    reader, writer = streams
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    try:
        answer = await read_head(reader)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ProtocolError) as error:
        raise _refused(proxy, target, "what is no HTTP") from error
    if not 200 <= answer.status < 300:
        raise _refused(proxy, target, f"status {answer.status}")


def _refused(proxy: str, target: str, found: str) -> EngineUnavailable:
    parts = urlsplit(proxy)  # what it may have of a password is nobody's to read
    return EngineUnavailable(
        f"the proxy at {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''} answers {found} to "
        f"CONNECT {target}, expected 200: look at the cluster's proxy-url in the kubeconfig, and whether it lets you "
        "through"
    )

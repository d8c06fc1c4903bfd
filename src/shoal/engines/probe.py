"""Whether a replica answers: the same question that Envoy asks, put by who has to restart what is dead."""

from __future__ import annotations

import asyncio
import socket

_MOST_BYTES = 4096


async def probe(host: str, port: int, path: str | None, timeout_s: float) -> str | None:
    """`None` if it is well, else why not. With a path: HTTP GET, well is 200 to 399; without: a TCP connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(connection, (host, port))
                return None if path is None else await _get(connection, host, port, path)
        except TimeoutError:
            return f"no answer within {timeout_s:g}s"
        except ConnectionRefusedError:
            return f"nothing listens on port {port}"
        except OSError as error:
            return (error.strerror or str(error)).lower()


async def _get(connection: socket.socket, host: str, port: int, path: str) -> str | None:
    loop = asyncio.get_running_loop()
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: shoal\r\nConnection: close\r\n\r\n"
    await loop.sock_sendall(connection, request.encode())
    answer = b""
    while b"\r\n" not in answer and len(answer) < _MOST_BYTES:
        received = await loop.sock_recv(connection, _MOST_BYTES)
        if not received:
            break
        answer += received
    return _verdict(path, answer)


def _verdict(path: str, answer: bytes) -> str | None:
    words = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"{path} gave no HTTP answer"
    status = int(words[1])
    return None if 200 <= status < 400 else f"{path} answered {status}"

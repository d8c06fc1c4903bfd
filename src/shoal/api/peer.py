"""Who is at the other end of a Unix socket, as the kernel says it: a second lock beside the socket's mode."""

from __future__ import annotations

import os
import socket
import struct

from aiohttp import web
from aiohttp.typedefs import Handler

CALLER = web.RequestKey("caller", str)  # by his certificate
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def peer_uid(connection: socket.socket) -> int | None:
    """The user who connected; `None` where the kernel does not say it this way."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    return _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))[1]


@web.middleware
async def own_user_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers 403 to everybody but the user that the controller runs as, and root."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    uid = peer_uid(connection) if connection is not None and connection.family == socket.AF_UNIX else None
    if uid is not None and uid not in {os.getuid(), 0}:
        message = f"this fleet belongs to user {os.getuid()}, and you are user {uid}"
        return web.json_response({"error": "Forbidden", "message": message}, status=403)
    return await handler(request)


def caller_of(request: web.Request) -> str:
    """Who asks, as the fleet's events call him."""
    return request.get(CALLER, "the machine's own user")

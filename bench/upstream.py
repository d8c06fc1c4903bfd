"""A server that costs as little as one can, to put behind a proxy: nginx where there is one, else a little asyncio.

    python bench/upstream.py PORT DIRECTORY

It becomes nginx, so that signals and the exit are nginx's own. Imports nothing of Shoal's.
"""

import asyncio
import os
import shutil
import sys
from pathlib import Path

_CONFIGURATION = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log /dev/null;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory};
  server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "ok\\n"; }} }}
}}
"""


class Upstream(asyncio.Protocol):
    """Answers each request with the same bytes."""

    _ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if isinstance(self._transport, asyncio.Transport):
            self._transport.write(self._ANSWER * data.count(b"\r\n\r\n"))


def main() -> None:
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        asyncio.run(_serve(port))
        return
    configuration = directory / f"nginx-{port}.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    os.execv(nginx, [nginx, "-p", str(directory), "-c", str(configuration)])


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    main()

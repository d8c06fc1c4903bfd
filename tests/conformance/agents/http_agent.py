"""An HTTP agent for the conformance cases: standard library alone, so that it runs on every engine's plainest image."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ME = {"replica": os.environ.get("SHOAL_REPLICA", "?"), "version": os.environ.get("VERSION", "1"), "pid": os.getpid()}

EATEN: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves as one: half of one, when its machine dies, nobody could repeat

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        getattr(self, f"on_{url.path.strip('/').partition('/')[0]}", self.on_)(query)

    do_POST = do_GET

    def on_(self, query: dict[str, str]) -> None:
        """Says who answers, after `ms` milliseconds, with status `status`."""
        time.sleep(float(query.get("ms", 0)) / 1000)
        self.answer({**ME, "path": self.path, "headers": dict(self.headers)}, int(query.get("status", 200)))

    def on_stream(self, query: dict[str, str]) -> None:
        """Server-sent events: `n` of them, `ms` milliseconds apart."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(query.get("n", 3))):
            self.chunk(f"data: {number}\n\n".encode())
            time.sleep(float(query.get("ms", 100)) / 1000)
        self.chunk(b"")

    def on_call(self, query: dict[str, str]) -> None:
        """Calls another agent by its variable, or any `url`, and tells the status."""
        url = query.get("url") or os.environ[f"SHOAL_URL_{query['agent'].upper()}"] + query.get("path", "/")
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                self.answer({"status": response.status, "body": response.read().decode()})
        except urllib.error.HTTPError as error:
            self.answer({"status": error.code, "body": error.read().decode()})
        except OSError as error:
            self.answer({"status": None, "body": str(error)})

    def on_env(self, _: dict[str, str]) -> None:
        self.answer({name: value for name, value in os.environ.items() if name.startswith(("SHOAL_", "PORT"))})

    def on_say(self, query: dict[str, str]) -> None:
        print(query["text"], flush=True)
        self.answer({})

    def on_secret(self, query: dict[str, str]) -> None:
        """What a secret holds as a file, and as a variable where it is one."""
        name = query["name"]
        path = Path(os.environ["SHOAL_SECRETS"]) / name
        writable = bool(path.stat().st_mode & 0o222)
        self.answer({"file": path.read_text(), "variable": os.environ.get(name), "writable": writable})

    def on_kept(self, _: dict[str, str]) -> None:
        """Every start of this identity, as `VERSION`, from its volume `stock`."""
        starts = (Path(os.environ["SHOAL_VOLUME_STOCK"]) / "starts").read_text().split()
        self.answer({**ME, "ordinal": int(os.environ["SHOAL_ORDINAL"]), "starts": starts})

    def on_write(self, query: dict[str, str]) -> None:
        """Writes into a file, and reads it back."""
        path = Path(query["path"])
        try:
            path.write_text("written")
            self.answer({"read": path.read_text()})
        except OSError as error:
            self.answer({"read": None, "reason": errno.errorcode[error.errno or 0]})

    def on_note(self, query: dict[str, str]) -> None:
        """Says at SINK that it worked on `id`, then who answers."""
        urllib.request.urlopen(os.environ["SINK"], query["id"].encode(), timeout=10).close()
        self.answer(ME)

    def on_eat(self, query: dict[str, str]) -> None:
        """Takes so many MiB of memory, and keeps them."""
        EATEN.append(b"x" * (int(query["mib"]) << 20))
        self.answer({})

    def on_files(self, _: dict[str, str]) -> None:
        """Opens files until it may open no more; tells how many it had, and closes them."""
        opened: list[int] = []
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
        for descriptor in opened:
            os.close(descriptor)
        self.answer({"files": len(opened), "reason": reason})

    def on_publish(self, query: dict[str, str]) -> None:
        """Publishes `n` tasks that each last `ms` milliseconds, or are `poison`."""
        from shoal.sdk import close, publish

        async def send() -> None:
            for number in range(int(query.get("n", 1))):
                task = {
                    "name": f"{query['name']}-{number}",
                    "ms": float(query.get("ms", 0)),
                    "poison": "poison" in query,
                }
                await publish(query["queue"], task, id=task["name"])
            await close()

        asyncio.run(send())
        self.answer({})

    def on_kill(self, _: dict[str, str]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def on_crash(self, _: dict[str, str]) -> None:
        print("crashing as told", file=sys.stderr, flush=True)
        os._exit(7)

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def answer(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


def hold(volume: Path) -> int:
    """The volume is this process's alone for as long as it lives, and says when it began; exit code 8 if it is not."""
    held = os.open(volume / "held", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("the volume has another holder", file=sys.stderr, flush=True)
        sys.exit(8)
    with (volume / "starts").open("a") as file:
        file.write(f"{ME['version']}\n")
    return held


def main() -> None:
    time.sleep(float(os.environ.get("START_S", "0")))
    if "SHOAL_VOLUME_STOCK" in os.environ:
        hold(Path(os.environ["SHOAL_VOLUME_STOCK"]))
    if needed := os.environ.get("NEEDS"):
        urllib.request.urlopen(os.environ[f"SHOAL_URL_{needed.upper()}"] + "/", timeout=10).close()
    if os.environ.get("BROKEN"):
        print("this version is broken", file=sys.stderr, flush=True)
        sys.exit(3)
    ThreadingHTTPServer.request_queue_size = 256
    server = ThreadingHTTPServer(("127.0.0.1" if "SHOAL_LOCAL" in os.environ else "", int(os.environ["PORT"])), Handler)
    server.daemon_threads = False  # what was accepted is answered before the process ends
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"version {ME['version']} serves on {os.environ['PORT']}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()


if __name__ == "__main__":
    main()

"""What `shoal init` writes: a fleet of one agent that runs with nothing but Python."""

from __future__ import annotations

import re

SPEC_FILE = "shoal.yaml"
AGENT_FILE = "hello.py"
_LONGEST_NAME = 40

SPEC_TEXT = """\
# A fleet of one agent. `shoal up` runs it; then: curl http://127.0.0.1:8080/hello
fleet: FLEET

agents:
  hello:                               # a service, for it has a port
    command: [python3, hello.py]       # each replica finds its own port in $PORT
    port: 8000
    public: /hello                     # without this only other agents could call it
    health: /healthz
    environment:
      GREETING: "${GREETING:-Hello}"
    scale:
      min: 1
      max: 4
      target: {concurrency: 10}        # requests in flight a replica
"""

AGENT_TEXT = '''\
"""An agent that greets: an HTTP service with the standard library alone."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Greeter(BaseHTTPRequestHandler):
    """Answers with a greeting and the name of the replica that gave it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.answer({"healthy": True})
        else:
            greeting = os.environ.get("GREETING", "Hello")
            self.answer({"greeting": greeting, "replica": os.environ.get("SHOAL_REPLICA", "none")})

    def answer(self, content: dict) -> None:
        body = json.dumps(content).encode() + b"\\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        if self.path != "/healthz":
            print(format % values, flush=True)


def main() -> None:
    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8000"))), Greeter)
    # SIGTERM asks to stop: no new requests, those in flight are finished.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.daemon_threads = False
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
'''


def starter_files(directory_name: str) -> dict[str, str]:
    """The files by name. The fleet gets the directory's name, so that two of them don't stand for one fleet."""
    return {SPEC_FILE: SPEC_TEXT.replace("FLEET", fleet_name(directory_name), 1), AGENT_FILE: AGENT_TEXT}


def fleet_name(directory_name: str) -> str:
    """The nearest name that a fleet may have; `hello` where nothing is left of it."""
    plain = re.sub(r"[^a-z0-9]+", "-", directory_name.lower()).strip("-")
    named = plain if not plain or plain[0].isalpha() else f"fleet-{plain}"
    return named[:_LONGEST_NAME].rstrip("-") or "hello"

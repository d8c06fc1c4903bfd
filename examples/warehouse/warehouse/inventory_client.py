"""Calls to inventory of the agents that may wait for them: JSON over the address that Shoal hands out, blocking.

There is no retry here: the gateway behind `SHOAL_URL_INVENTORY` repeats what inventory declares idempotent, and one
owner of retries is enough.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT_S = 20.0


def get(path: str) -> Any:
    """The JSON under this path, `None` where there is nothing yet. Raises OSError on any other failure."""
    try:
        return _call("GET", path)
    except HTTPError as error:
        with error:
            if error.code == 404:
                return None
        raise


def put(path: str, value: Any) -> Any:
    """Store JSON under this path. Raises OSError when it wasn't accepted."""
    return _call("PUT", path, json.dumps(value).encode())


def _call(method: str, path: str, body: bytes | None = None) -> Any:
    url = os.environ["SHOAL_URL_INVENTORY"] + path
    request = Request(url, body, {"content-type": "application/json"}, method=method)
    with urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)

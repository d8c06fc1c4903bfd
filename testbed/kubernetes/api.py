"""The API server as the bed itself uses it: an administrator, with no library between."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Generator
from typing import Any

from testbed.kubernetes.bed import ADMIN, KubeBed, token_of

Object = dict[str, Any]
_MOST_SAID = 2000
_WATCH_S = 240
_SILENCE_S = 90.0  # a watch has a bookmark about every minute


class Refused(OSError):
    """The API server says no; `code` is HTTP's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Api:
    """One bed's. Every method raises OSError where it isn't answered, and Refused where it is, with a no."""

    def __init__(self, bed: KubeBed) -> None:
        self._url = bed.api_url
        self._trust = ssl.create_default_context(cafile=str(bed.directory / "keys/ca.crt"))

    def get(self, path: str, *, timeout_s: float = 5.0) -> bytes:
        with self._open("GET", path, None, timeout_s) as answer:
            return answer.read()

    def create(self, path: str, wanted: Object) -> None:
        """In the collection at the path."""
        self._open("POST", path, wanted, timeout_s=5.0).close()

    def delete(self, path: str) -> None:
        self._open("DELETE", path, None, timeout_s=5.0).close()

    def list(self, path: str, *, timeout_s: float = 5.0) -> tuple[list[Object], str]:
        """All of a collection, and the version that it is of."""
        found = json.loads(self.get(path, timeout_s=timeout_s))
        return found["items"], found["metadata"]["resourceVersion"]

    def watch(self, path: str, version: str) -> Generator[Object]:
        """What changes after that version, until the API server ends it."""
        asked = f"{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={_WATCH_S}&resourceVersion={version}"
        with self._open("GET", asked, None, _SILENCE_S) as lines:
            for line in lines:
                yield json.loads(line)

    def _open(self, method: str, path: str, body: Object | None, timeout_s: float) -> Any:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token_of(ADMIN)}", "Content-Type": "application/json"},
        )
        try:
            return urllib.request.urlopen(request, context=self._trust, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(_MOST_SAID).decode(errors="replace")
            raise Refused(error.code, f"{method} {path}: {error.code}: {said}") from None

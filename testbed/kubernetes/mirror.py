"""Collections of the API server, kept as they are there: what the bed's agents act on."""

from __future__ import annotations

import http.client
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from testbed.kubernetes.api import Api, Object

_AGAIN_S = 0.5
_LIST_S = 60.0  # thousands of pods on a busy machine
_SETTLE_S = 0.05  # what changes together is acted on once
_REST = 4  # times as long as it took to act: thousands of pods leave the machine to those who run them
_ANYWAY_S = 5.0  # acted on again without a change: the last time may have failed
_BROKEN = (OSError, http.client.HTTPException, ValueError, KeyError)


class Mirror:
    """One collection, by a list and a watch; `changed` is set at each change."""

    def __init__(self, api: Api, path: str, changed: threading.Event) -> None:
        self._api, self._path, self._changed = api, path, changed
        self._lock = threading.Lock()
        self._objects: dict[str, Object] | None = None

    def objects(self) -> list[Object] | None:
        """All of it; None before the first list."""
        with self._lock:
            return None if self._objects is None else list(self._objects.values())

    def run(self) -> NoReturn:
        """For ever: a control plane that is stopped comes back."""
        while True:
            try:
                self._follow()
            except _BROKEN as error:
                self._say(repr(error))
                time.sleep(_AGAIN_S)

    def _follow(self) -> None:
        items, version = self._api.list(self._path, timeout_s=_LIST_S)
        listed = {each["metadata"]["uid"]: _without_history(each) for each in items}
        with self._lock:
            unheard = set[str]() if self._objects is None else listed.keys() ^ self._objects.keys()
            self._objects = listed
        if unheard:
            self._say(f"a list told of {len(unheard)} that came or went, of which no watch had told")
        self._changed.set()
        for event in self._api.watch(self._path, version):
            if event["type"] == "ERROR":  # the version is too old: listed again
                return
            if event["type"] != "BOOKMARK":
                self._take(event["type"], event["object"])

    def _say(self, what: str) -> None:
        print(f"{time.strftime('%X')} {self._path}: {what}", flush=True)

    def _take(self, kind: str, changed: Object) -> None:
        with self._lock:
            objects = self._objects = self._objects or {}
            if kind == "DELETED":
                objects.pop(changed["metadata"]["uid"], None)
            else:
                objects[changed["metadata"]["uid"]] = _without_history(changed)
        self._changed.set()


def _without_history(found: Object) -> Object:
    """Half of a pod is who set which field."""
    found["metadata"].pop("managedFields", None)
    return found


def act_on(api: Api, paths: Sequence[str], act: Callable[[Sequence[list[Object]]], None]) -> NoReturn:
    """For ever: calls `act` with the collections at the paths once they are known, after every change, and at times."""
    changed = threading.Event()
    mirrors = [Mirror(api, path, changed) for path in paths]
    for mirror in mirrors:
        threading.Thread(target=mirror.run, daemon=True).start()
    took_s = 0.0
    while True:
        changed.wait(_ANYWAY_S)
        time.sleep(max(_SETTLE_S, took_s * _REST))
        changed.clear()
        began_s = time.thread_time()
        known = [found for mirror in mirrors if (found := mirror.objects()) is not None]
        if len(known) == len(mirrors):
            try:
                act(known)
            except _BROKEN:
                traceback.print_exc()
        took_s = time.thread_time() - began_s

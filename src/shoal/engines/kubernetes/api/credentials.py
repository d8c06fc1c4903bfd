"""What is shown to the API server in each request: a token, from wherever the kubeconfig says that it comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from shoal.errors import EngineError

_KNOWN = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1"))
_READ_AGAIN_S = 60.0  # kubelet renews the token of a pod's file
_EARLY_S = 30.0
_PLUGIN_S = 120.0  # it may ask a person


class Credentials(Protocol):
    async def authorization(self, tls: ssl.SSLContext | None) -> str | None:
        """The header's value; a certificate goes into `tls`. Raises EngineError."""
        ...

    def refused(self) -> bool:
        """Forgets what was refused; whether another try may go better."""
        ...


class StaticToken:
    """One that never changes, or none."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    async def authorization(self, tls: ssl.SSLContext | None) -> str | None:
        return self._value

    def refused(self) -> bool:
        return False


class FileToken:
    """One that somebody renews in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value, self._read_at = "", float("-inf")

    async def authorization(self, tls: ssl.SSLContext | None) -> str | None:
        now = time.monotonic()
        if now - self._read_at > _READ_AGAIN_S:
            try:
                self._value, self._read_at = self._path.read_text().strip(), now
            except OSError as error:
                raise EngineError(f"the token at {self._path} can't be read: {error.strerror}") from error
        return f"Bearer {self._value}"

    def refused(self) -> bool:
        self._read_at = float("-inf")
        return True


class ExecPlugin:
    """A program that gives a token or a certificate (`aws eks get-token` and the like), as long as those hold."""

    def __init__(
        self, file: Path, user: str, plugin: Mapping[str, Any], environ: Mapping[str, str], cluster: Mapping[str, Any]
    ) -> None:
        self._where = f"{file}: user {user}"
        self._plugin, self._environ, self._cluster = plugin, environ, cluster
        self._directory = file.parent
        self._value: str | None = None
        self._until = float("-inf")
        self._lock = asyncio.Lock()
        self._version = str(plugin.get("apiVersion"))
        if self._version not in _KNOWN:
            raise EngineError(
                f"{self._where}: found a credential plugin of {self._version}, expected one of {', '.join(_KNOWN)}; "
                "let your cluster's tool write the kubeconfig anew"
            )

    async def authorization(self, tls: ssl.SSLContext | None) -> str | None:
        async with self._lock:
            if time.time() > self._until - _EARLY_S:
                self._take(await self._run(), tls)
            return self._value

    def refused(self) -> bool:
        self._until = float("-inf")
        return True

    def _take(self, status: Mapping[str, Any], tls: ssl.SSLContext | None) -> None:
        from shoal.engines.kubernetes.api.kubeconfig import load_certificate  # noqa: PLC0415 - they need each other

        token, certificate = status.get("token"), status.get("clientCertificateData")
        if not token and not certificate:
            raise EngineError(f"{self._where}: found neither a token nor a certificate in what the plugin printed")
        try:
            until = _expiry(status.get("expirationTimestamp"))
            if tls is not None and certificate:
                load_certificate(tls, certificate.encode(), status["clientKeyData"].encode())
        except (KeyError, ValueError, ssl.SSLError) as error:
            raise EngineError(f"{self._where}: what the plugin printed can't be used: {error!r}") from error
        self._value, self._until = f"Bearer {token}" if token else None, until

    async def _run(self) -> Mapping[str, str]:
        command = str(self._plugin.get("command", ""))
        if "/" in command:
            command = str(self._directory / command)
        environ = dict(self._environ)
        environ |= {str(each["name"]): str(each["value"]) for each in self._plugin.get("env") or ()}
        about: dict[str, Any] = {"interactive": False}
        if self._plugin.get("provideClusterInfo"):
            about["cluster"] = self._cluster
        asked = {"apiVersion": self._version, "kind": "ExecCredential", "spec": about}
        environ["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
        words = [command, *map(str, self._plugin.get("args") or ())]
        try:
            program = await asyncio.create_subprocess_exec(
                *words,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = self._plugin.get("installHint") or "install it, or let your cluster's tool write the kubeconfig anew"
            raise EngineError(f"{self._where}: {command} can't be run: {error.strerror}; {hint}") from error
        try:
            async with asyncio.timeout(_PLUGIN_S):
                output, errors = await program.communicate()
        except TimeoutError:
            raise EngineError(f"{self._where}: {command} gave no credentials within {_PLUGIN_S:g}s") from None
        finally:
            if program.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    program.kill()
                await program.wait()
        if program.returncode:
            said = errors.decode(errors="replace").strip()[-500:]
            raise EngineError(f"{self._where}: {command} ended with exit code {program.returncode}: {said}")
        try:
            return dict(json.loads(output)["status"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{self._where}: what {command} printed is no ExecCredential ({error!r})") from error


def _expiry(text: str | None) -> float:
    """Of what never says so, never."""
    return float("inf") if text is None else datetime.fromisoformat(text).timestamp()

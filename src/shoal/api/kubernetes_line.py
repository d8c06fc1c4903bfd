"""To the controller of a fleet on Kubernetes: through the API server's proxy to Services, so that the cluster's own
rules say who may. No port is opened for it, and nobody needs another certificate.

Who may read the Secret `shoal-admin` shows what it holds: any pod may be able to reach the controller's port.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from shoal.api.certificates import TOKEN_HEADER, USER_HEADER
from shoal.api.lines import Preface, WebRoute
from shoal.api.tunnel import open_tunnel
from shoal.engines.kubernetes.api import Kubernetes
from shoal.engines.kubernetes.api.kubeconfig import Access
from shoal.engines.kubernetes.api.refusals import refusal
from shoal.engines.kubernetes.names import CONTROLLER
from shoal.engines.kubernetes.own_keys import read_admin_token
from shoal.errors import ControllerUnavailable, EngineUnavailable, ShoalError
from shoal.http1 import HEAD_LIMIT_BYTES, ProtocolError, Streams

_CONNECT_S = 5.0


class KubernetesLine:
    """Of the fleet in one namespace."""

    def __init__(self, access: Access, namespace: str, fleet: str) -> None:
        self._access, self._namespace, self._fleet = access, namespace, fleet
        self._token: str | None = None
        parts = urlsplit(access.server)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self._path = f"{parts.path}/api/v1/namespaces/{namespace}/services/https:{CONTROLLER}:api/proxy"

    async def open(self) -> Streams:
        try:
            async with asyncio.timeout(_CONNECT_S):
                if self._access.proxy is not None:
                    return await open_tunnel(
                        self._access.proxy, self._host, self._port, self._access.tls, self._access.server_name
                    )
                return await asyncio.open_connection(
                    self._host,
                    self._port,
                    ssl=self._access.tls,
                    server_hostname=(self._access.server_name or self._host) if self._access.tls else None,
                    limit=HEAD_LIMIT_BYTES,
                )
        except (OSError, ssl.SSLError) as error:
            why = str(error) or f"no answer within {_CONNECT_S:g}s"
            raise EngineUnavailable(
                f"Kubernetes at {self._access.server} can't be reached: {why}; look whether `kubectl get nodes` "
                "works from here"
            ) from error

    async def preface(self) -> Preface:
        headers = [("Host", self._host), (USER_HEADER, getpass.getuser()), (TOKEN_HEADER, await self._admin_token())]
        authorization = await self._access.credentials.authorization(self._access.tls)
        if authorization is not None:
            headers.append(("Authorization", authorization))
        return Preface(self._path, (*headers, *self._access.impersonation))

    async def route(self) -> WebRoute:
        import aiohttp  # noqa: PLC0415 - takes as long as most commands in all

        connector = aiohttp.TCPConnector(ssl=self._access.tls or False)
        scheme = "https" if self._access.tls else "http"
        preface = await self.preface()
        url = f"{scheme}://{self._host}:{self._port}"
        return WebRoute(url, connector, self._access.server_name, preface, self._access.proxy)

    def refused(self, status: int, body: bytes) -> ShoalError | None:
        """The API server's own answers are of the kind Status."""
        try:
            told: dict[str, Any] = json.loads(body)
        except ValueError:
            told = {}
        if told.get("kind") != "Status":
            # A proxy's plain words, where nobody listens at the other end.
            text = body[:200].decode(errors="replace")
            return None if "error" in told else ControllerUnavailable(self._nobody(text.strip()))
        if status in (404, 502, 503):
            return ControllerUnavailable(self._nobody(str(told.get("message", ""))))
        return refusal(self._access.server, f"the controller of {self._fleet}", status, told)

    def absent(self, error: OSError | ProtocolError) -> ShoalError:
        return ControllerUnavailable(
            f"the way to the controller of {self._fleet} through {self._access.server} was cut: {error}; where it was "
            "moved or replaced, it is back in some seconds"
        )

    def late(self, waited_s: float) -> ShoalError:
        return ControllerUnavailable(
            f"the controller of {self._fleet} in {self._namespace} took the request, but did not answer within "
            f"{waited_s:g}s"
        )

    async def _admin_token(self) -> str:
        if self._token is None:
            async with Kubernetes(self._access, self._namespace) as kubernetes:
                self._token = await read_admin_token(kubernetes)
        if self._token is None:
            raise ControllerUnavailable(
                f"there is no controller of {self._fleet} in the namespace {self._namespace} at {self._access.server}; "
                "`shoal up` starts it"
            )
        return self._token

    def _nobody(self, said: str) -> str:
        return (
            f"no controller of {self._fleet} answers in the namespace {self._namespace} ({said}); `kubectl --namespace "
            f"{self._namespace} get pods --selector shoal.dev/role=controller` shows them, `shoal up` sees to it that "
            "there is one"
        )

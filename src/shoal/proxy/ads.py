"""Serves Envoy its resources: gRPC, aggregated, state of the world. One Envoy, over a Unix socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from shoal.proxy.ads_session import AdsSession, Published, Response
from shoal.proxy.messages import message_class

log = logging.getLogger(__name__)

_RETRY_LISTENERS_S = 2.0


class AdsServer:
    """Publishes versions, and knows which one the newest Envoy on the line uses.

    `on_change` is called when what is acknowledged or refused has changed.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._published = Published(0, {})
        self._streams: list[tuple[AdsSession, asyncio.Event]] = []
        self._on_change = on_change
        self.acknowledged = 0
        self.error = ""  # Envoy's words on what it refuses of the version that is published

    def publish(self, resources: Mapping[str, Mapping[str, bytes]]) -> int:
        """Makes serialised resources, by type URL and name, the current ones. Returns their version."""
        self._published = Published(self._published.version + 1, resources)
        self.error = ""  # of the version before
        for _, wake in self._streams:
            wake.set()
        return self._published.version

    def handler(self) -> grpc.GenericRpcHandler:
        method: Any = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=message_class("envoy.service.discovery.v3.DiscoveryRequest").FromString,
            response_serializer=_serialize,
        )
        service = "envoy.service.discovery.v3.AggregatedDiscoveryService"
        return grpc.method_handlers_generic_handler(service, {"StreamAggregatedResources": method})

    async def _stream(self, _requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        session, wake = AdsSession(), asyncio.Event()
        self._streams.append((session, wake))
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(session, wake, context))
                while (request := await context.read()) is not grpc.aio.EOF:
                    error = request.error_detail.message
                    session.receive(request.type_url, request.resource_names, request.response_nonce, error)
                    wake.set()
                writer.cancel()
        finally:
            self._streams.remove((session, wake))

    async def _write(
        self, session: AdsSession, wake: asyncio.Event, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        while True:
            wake.clear()
            published = self._published
            if published.version:  # an Envoy that was adopted keeps what it has until something is known
                for response in session.responses(published):
                    await context.write(response)
                self._note(session, published)
            try:
                async with asyncio.timeout(_RETRY_LISTENERS_S if self.error else None):
                    await wake.wait()
            except TimeoutError:
                session.retry_listeners()

    def _note(self, session: AdsSession, published: Published) -> None:
        if not self._streams or self._streams[-1][0] is not session:
            return  # an Envoy that is being replaced
        before = (self.acknowledged, self.error)
        if session.settled(published):
            self.acknowledged = published.version
        self.error = session.error(published)
        if self.error and self.error != before[1]:
            log.error("Envoy refuses what it was sent: %s", self.error)
        if before != (self.acknowledged, self.error):
            self._on_change()


def _serialize(response: Response) -> bytes:
    message = message_class("envoy.service.discovery.v3.DiscoveryResponse")(
        version_info=str(response.version), type_url=response.type_url, nonce=response.nonce
    )
    for body in response.resources.values():
        message.resources.add(type_url=response.type_url, value=body)
    return message.SerializeToString()

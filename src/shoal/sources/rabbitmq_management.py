"""RabbitMQ's HTTP API, for the one thing that AMQP can't tell: how many tasks are being worked on.

A queue that is declared passively says what waits in it, at once; what was delivered and not acknowledged stands in the
management API alone, at most some seconds old. The user needs the tag `management`, the least one there is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from shoal.errors import BrokerError

TIMEOUT_S = 10.0
_PAGE = 500
_COLUMNS = "name,messages_ready,messages_unacknowledged"


class ManagementApi:
    """`credentials` is `user:password`; `vhost` the virtual host that is looked at."""

    def __init__(self, url: str, credentials: str, vhost: str) -> None:
        self._url, self._vhost = url, vhost
        self._user, _, self._password = credentials.partition(":")
        self._session: aiohttp.ClientSession | None = None

    async def queues(self, prefix: str) -> Mapping[str, tuple[int, int]]:
        """What waits and what is not acknowledged, by queue, of those whose names begin so. Raises BrokerError."""
        found: dict[str, tuple[int, int]] = {}
        page, pages = 1, 1
        while page <= pages:
            answer = await self._get(
                f"/api/queues/{quote(self._vhost, safe='')}",
                {"page": f"{page}", "page_size": f"{_PAGE}", "name": f"^{re.escape(prefix)}", "use_regex": "true",
                 "columns": _COLUMNS},
            )  # fmt: skip
            pages, page = int(answer["page_count"]), page + 1
            for item in answer["items"]:
                found[item["name"]] = (int(item.get("messages_ready", 0)), int(item.get("messages_unacknowledged", 0)))
        return found

    async def close(self) -> None:
        """Closes the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _get(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"Authorization": aiohttp.encode_basic_auth(self._user, self._password)},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            )
        where = urlsplit(self._url)
        place = f"the management API at {where.scheme}://{where.hostname}:{where.port}"
        try:
            async with self._session.get(f"{self._url}{path}", params=query) as response:
                if response.status in {401, 403}:
                    raise BrokerError(
                        f"{place} refuses the user {self._user} (HTTP {response.status}); give it the tag `management`"
                    )
                if response.status != 200:
                    raise BrokerError(f"{place} answers HTTP {response.status}; is it RabbitMQ's, with this vhost?")
                return await response.json()
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            raise BrokerError(
                f"{place} can't be asked: {error or type(error).__name__}; enable the plugin rabbitmq_management "
                "there, or say where it is by `management_url`"
            ) from None

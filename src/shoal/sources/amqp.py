"""A connection to RabbitMQ for Shoal's side of the queues: opened when it is needed, one error for all that fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from urllib.parse import quote, urlsplit

from aiormq import Connection, exceptions
from aiormq.abc import AbstractChannel

from shoal.core.rabbitmq import vhost_of
from shoal.errors import BrokerError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
WORK_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 2.0
HEARTBEAT_S = 20

# What it says of each try to connect is in the error that is raised.
logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
logging.getLogger("aiormq.channel").setLevel(logging.CRITICAL)


class Different(BrokerError):
    """What is to be made is there already, and made in another way."""


class Amqp:
    """One connection. `credentials` is `user:password`."""

    def __init__(self, url: str, credentials: str) -> None:
        split = urlsplit(url)
        user, _, password = credentials.partition(":")
        port = split.port or (5671 if split.scheme == "amqps" else 5672)
        host = f"[{split.hostname}]" if ":" in (split.hostname or "") else split.hostname
        self.where = f"{host}:{port}"
        self._user = user
        self._address = (
            f"{split.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{self.where}"
            f"/{quote(vhost_of(url), safe='')}?heartbeat={HEARTBEAT_S}&name=shoal"
        )
        self._connection: Connection | None = None
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def channel(
        self, *, confirms: bool = False, timeout_s: float = WORK_TIMEOUT_S
    ) -> AsyncGenerator[AbstractChannel]:
        """A channel of its own for one piece of work, of at most `timeout_s`. Raises BrokerError for all that fails in
        there, Different where something is made in another way."""
        async with self._as_broker_error():
            connection = await self._connected()
            async with asyncio.timeout(timeout_s):
                channel = await connection.channel(publisher_confirms=confirms)
                try:
                    yield channel
                finally:
                    with contextlib.suppress(exceptions.AMQPError, OSError, RuntimeError):
                        await channel.close()

    async def close(self) -> None:
        """Closes the connection, within two seconds."""
        connection, self._connection = self._connection, None
        await _close(connection)

    async def _connected(self) -> Connection:
        async with self._opening:
            if self._connection is None or not self._connection.is_opened:
                await self.close()
                connection = Connection(self._address)
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        await connection.connect()  # pyright: ignore[reportUnknownMemberType] - aiormq's types
                except BaseException:
                    await _close(connection)
                    raise
                self._connection = connection
            return self._connection

    @contextlib.asynccontextmanager
    async def _as_broker_error(self) -> AsyncGenerator[None]:
        task = asyncio.current_task()
        try:
            yield
        except BrokerError:
            raise
        except exceptions.ChannelPreconditionFailed as error:
            raise Different(f"broker {self.where}: {_words(error)}") from error
        except exceptions.ChannelAccessRefused as error:
            raise BrokerError(
                f"broker {self.where}: {_words(error)}; give the user {self._user} the rights to configure, write and "
                "read what begins with shoal.FLEET"
            ) from error
        except (exceptions.AuthenticationError, exceptions.ProbableAuthenticationError) as error:
            raise BrokerError(f"broker {self.where}: refuses the user {self._user} with that password") from error
        except exceptions.DeliveryError as error:
            raise BrokerError(f"broker {self.where}: nothing takes what is sent there") from error
        except (exceptions.AMQPError, exceptions.ChannelInvalidStateError, OSError, TimeoutError) as error:
            raise BrokerError(f"broker {self.where}: {_words(error)}") from error
        except asyncio.CancelledError as error:  # aiormq ends what waits on a lost connection in this way too
            if task is not None and task.cancelling():
                raise
            raise BrokerError(f"broker {self.where}: the connection was lost") from error


def _words(error: BaseException) -> str:
    text = " ".join(str(argument) for argument in error.args)
    return text or type(error).__name__


async def _close(connection: Connection | None) -> None:
    if connection is None:
        return
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
    except (exceptions.AMQPError, OSError, RuntimeError, TimeoutError):
        log.debug("the connection did not close cleanly", exc_info=True)

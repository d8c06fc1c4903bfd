"""What the tests of the local engine begin with: a directory whose processes end with the test, an engine on it.

And what those of queues do: each broker in turn, with the same cases.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from local_fleet import local_engine, nothing_left_running
from queues_broker import Broker, Nats, a_fleet
from rabbitmq_node import OnRabbitMq, rabbitmq_node, require_rabbitmq

from shoal.engines.local.engine import LocalEngine
from testbed.rabbitmq import RabbitMq


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A fleet's state directory."""
    with nothing_left_running(tmp_path):
        yield tmp_path / "state"


@pytest.fixture
async def engine(directory: Path) -> AsyncIterator[LocalEngine]:
    async with local_engine(directory) as engine:
        yield engine


@pytest.fixture(scope="session")
def rabbitmq_session() -> Iterator[RabbitMq]:
    """One node for all tests: it takes longer to start than most of them."""
    require_rabbitmq()
    yield from rabbitmq_node()


@pytest.fixture(params=["nats", "rabbitmq"])
def new_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Broker]:
    """Makes a broker with a fleet of `a_fleet`'s settings on it; each test that has this runs on both."""
    if request.param == "nats":
        return lambda **settings: Nats(tmp_path, a_fleet(**settings))
    node: RabbitMq = request.getfixturevalue("rabbitmq_session")
    return lambda **settings: OnRabbitMq(tmp_path, node, **settings)

"""Which versions of Kubernetes a fleet is brought to."""

from __future__ import annotations

import pytest
from api_server import Answer, ApiServer, listen

from shoal.engines.kubernetes.api import Access, Kubernetes
from shoal.engines.kubernetes.api.credentials import StaticToken
from shoal.engines.kubernetes.install import check_version
from shoal.errors import EngineError


async def check(major: str, minor: str) -> None:
    """A server that says it is of that version."""
    server = ApiServer({"GET /version": Answer({"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.4"})})
    async with listen(server) as url, Kubernetes(Access(url, None, StaticToken(None)), "shop") as kubernetes:
        await check_version(kubernetes)


@pytest.mark.parametrize(("major", "minor"), [("1", "30"), ("1", "30+"), ("1", "34"), ("1", "36"), ("2", "0")])
async def test_those_from_1_30_on_are_taken(major: str, minor: str) -> None:
    """As those who sell clusters write it too."""
    await check(major, minor)


@pytest.mark.parametrize(("minor", "read"), [("29", "1.29"), ("29+", "1.29"), ("9", "1.9")])
async def test_older_ones_are_refused_with_what_they_lack(minor: str, read: str) -> None:
    with pytest.raises(EngineError) as caught:
        await check("1", minor)
    told = str(caught.value)
    assert told.startswith("Kubernetes at http://127.0.0.1:") and f" is {read}, expected 1.30 or newer" in told
    assert "`sleep`" in told and "WebSockets" in told

"""What people are shown: logs, explain, events, status."""

from __future__ import annotations

from tests.conformance.bed import FleetBed


async def test_logs(bed: FleetBed) -> None:
    """What a replica writes to either stream can be read, with its agent and replica."""
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"})}})
    await bed.get("/web/say?text=hello-from-inside")
    lines = [line async for line in bed.api.logs(["web"])]
    found = [line for line in lines if "hello-from-inside" in line.text]
    assert found and found[0].agent == "web" and found[0].replica.startswith("web")


async def test_explain(bed: FleetBed) -> None:
    """A change of count is there with its reason; a pin is one."""
    await bed.up({"agents": {"web": bed.http_agent(scale={"min": 1, "max": 3})}})
    await bed.api.scale("web", 3)
    await bed.until_agent("web", lambda a: a.ready == 3 and a.pin == 3, "the pin to hold")
    decisions = await bed.api.explain("web")
    assert any(d.count == 3 and d.current == 1 and d.reason for d in decisions)
    await bed.api.scale("web", None)
    await bed.until_agent("web", lambda a: a.pin is None, "the pin to be released")


async def test_crash_is_told(bed: FleetBed) -> None:
    """A replica that ends by itself comes back, and the event says how it ended."""
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"})}})
    await bed.get("/web/crash")
    await bed.until_agent("web", lambda a: a.ready == 1 and a.replicas[0].restarts >= 1, "the replica to come back")
    events = [event async for event in bed.api.events()]
    assert any(event.kind == "crashed" and "7" in event.message for event in events)

"""What people are shown: logs, explain, events, status."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

import pexpect
import pytest

from shoal.api.views import LogView
from shoal.errors import NotFound
from tests.conformance.bed import DEADLINE_S, FleetBed

SAYS_ITS_SIZE = """
import os, time
while os.get_terminal_size(0) != (100, 30):
    time.sleep(0.05)
print("sized", os.environ["SHOAL_REPLICA"])
"""


async def test_logs(bed: FleetBed) -> None:
    """What a replica writes to either stream can be read, with its agent and replica."""
    await bed.up({"agents": {"web": bed.http_agent(public={"path": "/web"})}})
    await bed.get("/web/say?text=hello-from-inside")
    found: list[LogView] = []
    async with asyncio.timeout(DEADLINE_S):
        while not found:  # it may be on its way to where the engine reads it
            await asyncio.sleep(0.1)
            found = [line async for line in bed.api.logs(["web"]) if "hello-from-inside" in line.text]
    assert found[0].agent == "web" and found[0].replica.startswith("web")


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


async def test_a_command_in_a_replica(bed: FleetBed) -> None:
    """`shoal exec` runs a command where a replica runs, with its environment, secrets as well: input, outputs and exit
    code pass, and so does the size of a terminal."""
    agent = bed.http_agent(secrets=[{"name": "KEY", "as": "env"}])
    await bed.up({"agents": {"web": agent}}, {"KEY": b"hidden"})
    program = 'cat; echo "$SHOAL_REPLICA $KEY"; echo oh >&2; exit 3'
    code, said = await bed.shoal("exec", "web", "sh", "-c", program, given=b"given ")
    (replica,) = (await bed.api.status()).agents[0].replicas
    assert (code, sorted(said.split())) == (3, sorted(["given", replica.id, "hidden", "oh"]))
    async with bed.api.exec(replica.id, ["python3", "-c", SAYS_ITS_SIZE], tty=True) as command:
        await command.resize(30, 100)
        async with aclosing(command.output()) as output:
            shown = b"".join([piece async for _, piece in output])
        assert (shown, await command.exit_code()) == (f"sized {replica.id}\r\n".encode(), 0)
    events = [event async for event in bed.api.events() if event.kind == "exec"]
    assert len(events) == 2 and f"runs sh in {replica.id}" in events[0].message


async def test_a_shell_in_a_replica(bed: FleetBed) -> None:
    """On a terminal `shoal exec` gives a shell one too, of the same size. Ctrl-C ends what it runs, not the shell."""
    await bed.up({"agents": {"web": bed.http_agent()}})
    assert await asyncio.to_thread(use_shell, bed) == 9


def use_shell(bed: FleetBed) -> int | None:
    """Its exit code, after each step was seen to work."""
    words = ["-m", "shoal.cli", "--fleet", bed.fleet, "exec", "web", "sh"]
    shell: pexpect.spawn[str] = pexpect.spawn(
        sys.executable, words, env=bed.environ, dimensions=(33, 77), encoding="utf-8", timeout=30
    )
    try:
        shell.expect_exact(["# ", "$ "])
        shell.setwinsize(20, 60)
        shell.sendline(f"python3 -c '{SAYS_ITS_SIZE.strip().replace('(100, 30)', '(60, 20)')}'")
        shell.expect("sized web")
        # What says so is in the foreground already: a Ctrl-C while the shell still puts it there is for the shell.
        shell.sendline("sh -c \"echo be''gun; exec sleep 1000\"")
        shell.expect("begun")
        shell.sendintr()
        shell.sendline("echo ba''ck")
        shell.expect("back")
        shell.sendline("exit 9")
        shell.expect(pexpect.EOF)
        shell.close()
        return shell.exitstatus
    finally:
        shell.close(force=True)


async def test_a_command_that_can_not_run(bed: FleetBed) -> None:
    """It is told why: there is no such program (127, as in every shell), or no such replica."""
    await bed.up({"agents": {"web": bed.http_agent()}})
    code, said = await bed.shoal("exec", "web", "no-such-program")
    assert code == 127 and "no-such-program" in said
    async with bed.api.exec("web-nobody", ["true"], tty=False) as command, aclosing(command.output()) as output:
        with pytest.raises(NotFound, match="web-nobody does not run now"):
            await anext(output)
    code, said = await bed.shoal("exec", "wob", "true")
    assert code == 1 and "did you mean 'web'" in said

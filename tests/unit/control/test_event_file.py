"""Events outlive the controller that noted them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.control import event_file
from shoal.control.agent_state import Event
from shoal.control.event_file import EventFile, EventHistory, read_events


def events(*numbers: int) -> list[Event]:
    return [Event(float(number), "web" if number % 2 else None, "crashed", f"é {number}") for number in numbers]


def test_the_next_controller_goes_on_with_them(tmp_path: Path) -> None:
    """One at a time or several; the file is its owner's alone."""
    path = tmp_path / "events.jsonl"
    first = EventFile(path)
    first.append(events(1)[0])
    first.extend(events(2, 3))
    first.extend(())
    second = EventFile(path)
    second.append(events(4)[0])
    assert list(second) == list(read_events(path)) == events(1, 2, 3, 4)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("torn", [b'{"at": 9.0, "agent"', b"\xff\x00", b"{}", b"[1]\n", b"3"])
def test_what_a_kill_leaves_half_written_is_skipped(tmp_path: Path, torn: bytes) -> None:
    """And takes no other event with it."""
    path = tmp_path / "events.jsonl"
    EventFile(path).extend(events(1))
    with path.open("ab") as file:
        file.write(torn)
    EventFile(path).extend(events(2))
    assert list(EventFile(path)) == events(1, 2)


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones are there whenever it is rotated; what memory holds is bounded too."""
    monkeypatch.setattr(event_file, "FILE_BYTES", 2000)
    path = tmp_path / "events.jsonl"
    noted = EventFile(path)
    for number in range(200):
        noted.extend(events(number))
        kept = list(read_events(path))
        assert kept == events(*range(number + 1 - len(kept), number + 1))
    assert len(list(read_events(path))) > 20
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 5000
    assert len(EventHistory(events(*range(3000)))) == event_file.EVENTS_KEPT


def test_a_disk_that_cannot_be_written_costs_no_event_here(tmp_path: Path) -> None:
    """Who asks the controller is told all the same."""
    noted = EventFile(tmp_path / "gone" / "events.jsonl")
    noted.extend(events(1))
    assert list(noted) == events(1)

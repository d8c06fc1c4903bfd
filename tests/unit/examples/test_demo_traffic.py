"""The demo's traffic: a real trace, compressed the same way every time, and batches whose effects are known."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.warehouse.warehouse.readings import parse_batch
from examples.warehouse.warehouse_demo.show import parse_arguments, plan_traffic
from examples.warehouse.warehouse_demo.traffic import (
    EXCERPT,
    busiest_window,
    compress,
    load_arrivals,
    make_batch,
    make_traffic,
    spike_start,
)


def test_the_excerpt_is_what_its_readme_says() -> None:
    """931 arrivals over 85 s with a burst of 67 in one second of the trace's own clock."""
    arrivals = load_arrivals(EXCERPT)
    assert len(arrivals) == 931
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(84.86, abs=0.01)


def test_a_file_without_arrivals_is_refused(tmp_path: Path) -> None:
    """An empty trace is an error that names the file."""
    (tmp_path / "empty.csv").write_text("TIMESTAMP\n")
    with pytest.raises(ValueError, match=r"empty\.csv: no arrivals"):
        load_arrivals(tmp_path / "empty.csv")


@given(seconds=st.floats(5, 300), peak=st.floats(5, 200))
def test_compressing_keeps_time_and_peak_within_bounds(seconds: float, peak: float) -> None:
    """The last arrival is within the time, no second is much busier than asked, and the result is always the same."""
    arrivals = load_arrivals(EXCERPT)
    compressed = compress(arrivals, seconds, peak)
    assert compressed == sorted(compressed)
    assert compressed[0] >= 0
    assert compressed[-1] <= seconds * (1 + 1e-9)
    assert max(Counter(int(at_s) for at_s in compressed).values()) <= peak + 1
    assert compressed == compress(arrivals, seconds, peak)


def test_thinning_keeps_the_shape() -> None:
    """Half of the requests: about half of them in every wave."""
    arrivals = load_arrivals(EXCERPT)
    thinned = compress(arrivals, arrivals[-1], 33.5)
    for start, end in ((0, 20), (20, 50), (50, 90)):
        whole = sum(start <= at_s < end for at_s in arrivals)
        half = sum(start <= at_s < end for at_s in thinned)
        assert half / whole == pytest.approx(len(thinned) / len(arrivals), abs=0.05)


def test_the_spike_starts_where_the_climb_does() -> None:
    """The beginning of the climb to the busiest second, not the quiet before it, nor the second itself."""
    quiet = [0.1, 1.1, 2.1, 3.1]
    climb = [4 + n / 10 for n in range(5)] + [5 + n / 20 for n in range(12)] + [8.0]
    assert spike_start(quiet + climb) == 4.0


def test_the_busiest_window_of_a_larger_trace() -> None:
    """It has the busiest second in its middle and starts at zero."""
    arrivals = [float(n) for n in range(1000)] + [500.5] * 9
    window = busiest_window(sorted(arrivals), 20)
    assert window[0] == 0.0
    assert len(window) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("number", range(0, 60, 7))
def test_a_batch_is_accepted_and_names_its_pictures(number: int) -> None:
    """Ingest accepts every batch that the demo makes, and finds as many pictures as the demo expects tasks."""
    body, pictures = make_batch(number)
    batch = parse_batch(body.encode(), "text/csv")
    assert len(batch.pictures) == pictures
    assert bool(batch.drifting) == (number % 17 == 0)
    assert make_batch(number) == (body, pictures)


def test_a_request_that_nobody_serves_can_be_injected() -> None:
    """It is one request more, and owes no effects."""
    plain = plan_traffic(parse_arguments(["--seconds", "20"]))
    broken = plan_traffic(parse_arguments(["--seconds", "20", "--inject", "failed-request"]))
    assert {request.id for request in broken.requests} - {request.id for request in plain.requests} == {"injected"}
    assert broken.tasks == plain.tasks


def test_another_trace_comes_from_the_directory_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--trace` needs SHOAL_TRACES; the window around the busiest second is taken."""
    with pytest.raises(SystemExit):
        parse_arguments(["--trace", "other.csv"])
    monkeypatch.setenv("SHOAL_TRACES", str(tmp_path))
    rows = [f"2023-11-16 18:{minute:02d}:{second:02d}.1234567,1" for minute in range(9) for second in range(60)]
    rows += ["2023-11-16 18:04:30.2000000,1"] * 40
    (tmp_path / "other.csv").write_text("\n".join(["TIMESTAMP,tokens", *rows]))
    traffic = plan_traffic(parse_arguments(["--trace", "other.csv", "--seconds", "90", "--peak-rps", "100"]))
    assert len(traffic.batches) == pytest.approx(130, abs=2)
    assert traffic.spike_at_s == pytest.approx(45 * 0.87, abs=2)


def test_traffic_names_every_batch_and_task() -> None:
    """What must come of it is known before anything is sent."""
    traffic = make_traffic([0.0, 0.5, 1.0, 1.5], seconds=10)
    assert traffic.batches == ("batch-00000", "batch-00001", "batch-00002", "batch-00003")
    assert traffic.tasks == ("batch-00000-0", "batch-00003-0")
    assert sum(request.method == "GET" for request in traffic.requests) == 24
    assert [request.at_s for request in traffic.requests] == sorted(request.at_s for request in traffic.requests)
    assert traffic.tasks_in({"batch-00000-0", "batch-00003-0", "other"})
    assert not traffic.tasks_in({"batch-00000-0"})

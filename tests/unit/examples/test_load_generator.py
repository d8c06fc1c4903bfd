"""The load generator's pure parts: whom it may send to, where answers end, what the numbers mean."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import (
    Outcome,
    Request,
    main,
    parse_target,
    quantile,
    read_schedule,
    summarize,
    write_schedule,
)
from bench.load_http import AnswerReader


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://127.9.9.9:81/x/", "127.9.9.9:81"),
        ("http://localhost:1", "127.0.0.1:1"),
        ("http://[::1]:5", "[::1]:5"),
    ],
)
def test_loopback_is_accepted(url: str, authority: str) -> None:
    """This machine, by any of its loopback addresses."""
    assert parse_target(url).authority == authority


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:80", "http://example.com", "http://0.0.0.0:80", "https://127.0.0.1:1", "127.0.0.1:80"]
)
def test_everything_else_is_refused(url: str) -> None:
    """No name is resolved, and no other address taken."""
    with pytest.raises(ValueError, match=r"expected|loopback"):
        parse_target(url)


def test_a_private_network_may_be_allowed_by_name() -> None:
    """A test's own namespace; never a public network."""
    assert parse_target("http://10.1.2.3:80", ["10.1.0.0/16"]).host == "10.1.2.3"
    with pytest.raises(ValueError, match="loopback"):
        parse_target("http://10.2.2.3:80", ["10.1.0.0/16"])
    with pytest.raises(ValueError, match="only private"):
        parse_target("http://8.8.8.8:80", ["8.8.8.0/24"])


def test_the_command_line_refuses_too(tmp_path: Path) -> None:
    """Usage error, before anything is read or sent."""
    with pytest.raises(SystemExit, match="2"):
        main(["--target", "http://192.168.1.1", "--schedule", str(tmp_path / "s"), "--out", str(tmp_path / "o")])


def test_a_schedule_is_written_in_order_and_read_back(tmp_path: Path) -> None:
    """The same requests, sorted by time; a file in another order is refused."""
    requests = [Request("b", 2.0, "PUT", "/x", "body", {"a": "b"}, True), Request("a", 1.0)]
    write_schedule(tmp_path / "s.jsonl", requests)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert list(read_schedule(lines)) == [requests[1], requests[0]]
    with pytest.raises(ValueError, match="line 2"):
        list(read_schedule(reversed(lines)))


@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=30), st.booleans())
def test_an_answer_ends_where_its_head_says(body: bytes, cuts: list[int], chunked: bool) -> None:
    """However the bytes are cut up, the answer is whole with its last byte and not before."""
    if chunked:
        pieces = [body[:20], body[20:]] if len(body) > 20 else [body]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    reader = AnswerReader("GET")
    parts: list[bytes] = []
    rest = data
    for cut in cuts:
        parts.append(rest[:cut])
        rest = rest[cut:]
    parts.append(rest)
    whole = [reader.feed(part) for part in parts if part]
    assert whole[-1]
    assert not any(whole[:-1])
    assert (reader.status, reader.reusable) == (200, True)


def test_answers_without_a_length() -> None:
    """No body after HEAD, 204 and 304; else until the connection ends; 1xx is not the answer."""
    assert AnswerReader("HEAD").feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    assert AnswerReader("GET").feed(b"HTTP/1.1 204 No Content\r\n\r\n")
    reader = AnswerReader("GET")
    assert not reader.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
    assert reader.close()
    assert not reader.reusable
    assert not AnswerReader("GET").close()


def test_a_chunked_answer_may_have_trailers() -> None:
    """Trailers belong to the answer."""
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nx: y\r\n\r\n"
    reader = AnswerReader("GET")
    assert not reader.feed(data[:-2])
    assert reader.feed(data[-2:])


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_quantile_is_the_nearest_rank(values: list[float], q: float) -> None:
    """At least a share q is at or below it, and it is one of the values."""
    values.sort()
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-6
    assert math.isnan(quantile([], q))


def test_a_summary_counts_from_the_scheduled_time() -> None:
    """A generator that was late does not make the fleet look fast."""
    outcomes = [
        Outcome("a", 1.0, 1.5, 0.2, 0.1, 200, "ok", False),
        Outcome("b", 2.0, 2.0, 0.1, None, None, "reset", False),
        Outcome("c", 3.0, 9.0, 0.0, None, None, "not-sent", False),
    ]
    summary = summarize(outcomes)
    assert (summary.requests, summary.failed) == (3, 2)
    assert summary.outcomes == {"not-sent": 1, "ok": 1, "reset": 1}
    assert summary.p50_s == pytest.approx(0.7)
    assert summary.late_s == pytest.approx(0.5)

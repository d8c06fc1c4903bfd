"""Frames and log lines are put together whatever pieces they come in."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from shoal.engines.swarm.docker.frames import FrameDecoder, LineAssembler, LineSplitter, RawLine

TIME = "2026-11-21T19:00:00.500000000Z"
DETAILS = "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1"
AT = 1795287600.5


def frame(number: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", number, len(content)) + content


@given(
    frames=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8),
    cuts=st.lists(st.integers(1, 30), max_size=20),
)
def test_frames_are_whole_however_they_were_cut(frames: list[tuple[int, bytes]], cuts: list[int]):
    stream = b"".join(frame(*one) for one in frames)
    decoder, found = FrameDecoder(), []
    for cut in [*cuts, len(stream)]:
        found += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [({1: "stdout", 2: "stderr"}[number], content) for number, content in frames]


def test_a_line_says_when_and_where_it_was_written():
    line = LineAssembler().feed("stderr", f"{TIME} {DETAILS} hello  there\n".encode())
    assert line == RawLine("stderr", "hello  there", AT, "t1", "n1")


def test_details_are_quoted_as_in_a_url():
    line = LineAssembler().feed("stdout", f"{TIME} a%3Db=c%2Cd,com.docker.swarm.task.id=t%201 x\n".encode())
    assert line is not None
    assert line.task_id == "t 1"


def test_an_empty_line_is_one():
    line = LineAssembler().feed("stdout", f"{TIME} {DETAILS} \n".encode())
    assert line is not None
    assert line.text == ""


def test_a_long_line_is_one_though_docker_cuts_it():
    """Lines of another stream in between don't break it."""
    lines = LineAssembler()
    assert lines.feed("stdout", f"{TIME} {DETAILS} {'a' * 20}".encode()) is None
    assert lines.feed("stderr", f"{TIME} {DETAILS} between\n".encode()) == RawLine("stderr", "between", AT, "t1", "n1")
    assert lines.feed("stdout", f"{TIME} {DETAILS} {'b' * 3}\n".encode()) == RawLine(
        "stdout", "a" * 20 + "bbb", AT, "t1", "n1"
    )


def test_a_line_without_end_does_not_fill_the_memory():
    lines = LineAssembler()
    part = f"{TIME} {DETAILS} {'a' * 16384}".encode()
    given = [line for _ in range(200) if (line := lines.feed("stdout", part))]
    assert [len(line.text) for line in given] == [1 << 20] * 3


def test_the_rest_is_what_has_no_newline():
    lines = LineAssembler()
    assert lines.feed("stdout", f"{TIME} {DETAILS} last".encode()) is None
    assert lines.rest() == [RawLine("stdout", "last", AT, "t1", "n1")]
    assert lines.rest() == []


def test_lines_are_whole_however_they_were_cut():
    lines = LineSplitter()
    pieces = (b'{"a"', b': 1}\n{"b": 2}\n\n{"c', b'": 3}\n', b"cut off")
    assert [lines.feed(piece) for piece in pieces] == [[], [b'{"a": 1}', b'{"b": 2}'], [b'{"c": 3}'], []]

"""Files of variables as Compose reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import Problem
from shoal.spec.dotenv import parse_variables


def parse(text: str, **environment: str) -> dict[str, str]:
    problems: list[Problem] = []
    found = parse_variables(text, ".env", environment, problems)
    assert not problems, problems
    return {name: scalar.text for name, scalar in found.items()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1", {"A": "1"}),
        ("# c\n\n  A = 1  \n", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=a # comment", {"A": "a"}),
        ("A=a#b", {"A": "a#b"}),
        ("A='a # b' # c", {"A": "a # b"}),
        ("A='$B \\n'", {"A": "$B \\n"}),
        ("A='it\\'s'", {"A": "it's"}),
        ('A="a\\nb\\t\\"c\\" \\\\ \\$B"', {"A": 'a\nb\t"c" \\ $B'}),
        ('A="two\nlines"\nB=3', {"A": "two\nlines", "B": "3"}),
        ("A=1\nB=${A}2\nC=$B", {"A": "1", "B": "12", "C": "12"}),
        ("A=${X:-d}", {"A": "d"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=x=y", {"A": "x=y"}),
        ("A=1\nA=2", {"A": "2"}),
        ("NOT_SET", {}),
    ],
)
def test_the_format_is_that_of_compose(text: str, found: dict[str, str]) -> None:
    """Quotes, comments, escapes, lines, variables."""
    assert parse(text) == found


def test_the_process_wins_over_what_is_further_up() -> None:
    """A variable in a value is that of the process, if it has one."""
    assert parse("A=file\nB=${A}", A="process") == {"A": "file", "B": "process"}


def test_a_name_alone_is_passed_on() -> None:
    """As `docker run -e NAME` does."""
    assert parse("A\nexport B", A="1", B="2") == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nwhat is this", ".env:2:1: found 'what is this'; expected NAME=value"),
        ("\nA='open", ".env:2:1: A: the quote ' is not closed"),
        ("A=pa$word", ".env:1:1: A: the variable word is not set (set it, or write ${word:-default})"),
    ],
)
def test_what_is_wrong_has_a_place(text: str, problem: str) -> None:
    """A line that is no variable is not passed over."""
    problems: list[Problem] = []
    parse_variables(text, ".env", {}, problems)
    assert [str(each) for each in problems] == [problem]


def test_each_variable_knows_its_line() -> None:
    """Also below a value of several lines."""
    found = parse_variables('A="1\n2"\n\nB=3', "x.env", {}, [])
    assert {name: scalar.spot.line for name, scalar in found.items()} == {"A": 1, "B": 4}


@given(st.text(alphabet="AB=\"'\\n$#{} \n", max_size=60))
def test_any_text_is_read_to_its_end(text: str) -> None:
    """What is found and what is refused has a place within the text, and a line after it all is still read."""
    problems: list[Problem] = []
    found = parse_variables(f"{text}\nLAST='1'", ".env", {}, problems)
    lines = text.count("\n") + 2
    assert all(1 <= scalar.spot.line <= lines for scalar in found.values())
    assert all(problem.place is not None and 1 <= problem.place.line <= lines for problem in problems)
    assert "LAST" in found or any("not closed" in problem.message for problem in problems) or '"' in text or "'" in text

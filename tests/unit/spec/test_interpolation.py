"""`${VAR}` as Compose has it, and what is left for the start of a replica."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.spec.interpolation import InterpolationError, interpolate

VARIABLES = {"A": "1", "EMPTY": "", "DOLLAR": "a$b"}


def lookup(name: str) -> tuple[str, str] | None:
    return (VARIABLES[name], "environment") if name in VARIABLES else None


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "1"),
        ("${A}x", "1x"),
        ("$A.$A", "1.1"),
        ("${NO:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NO-d}", "d"),
        ("${A:-d}", "1"),
        ("${A:?why}", "1"),
        ("${EMPTY?why}", ""),
        ("${A:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${NO+r}", ""),
        ("${NO:-}", ""),
        ("${NO:-${ALSO_NO:-${A}}}", "1"),
        ('${NO:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'),
        ("${A:-${NO}}", "1"),
        ("${NO:-$$A}", "$A"),
        ("$$A $${A} $$$A", "$A ${A} $1"),
        ("${DOLLAR}", "a$b"),
    ],
)
def test_variables_are_put_in_as_in_compose(text: str, result: str) -> None:
    """Each of Compose's forms."""
    assert interpolate(text, lookup).text == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$NO", "the variable NO is not set"),
        ("${NO}", "the variable NO is not set"),
        ("${NO:?say why}", "the variable NO is missing: say why"),
        ("${EMPTY:?}", "the variable EMPTY is missing: it is required"),
        ("${NO?${A} is not enough}", "the variable NO is missing: 1 is not enough"),
        ("${A", "the ${A is not closed"),
        ("${NO:-${A}", "the ${NO is not closed"),
        ("${A!}", "${A!} is not a variable"),
        ("${}", "a ${ is followed by no name"),
        ("a $ b", "a $ stands alone"),
        ("$1", "a $ stands alone"),
        ("${A:-" * 30 + "}" * 30, "variables are nested deeper than 20 levels"),
    ],
)
def test_what_is_missing_or_malformed_is_refused(text: str, message: str) -> None:
    """Compose would put in nothing and go on."""
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, lookup)
    assert str(caught.value) == message


def test_a_command_keeps_what_the_start_puts_in() -> None:
    """Without braces a name is left; with them it is put in, but for names that only the start knows."""
    text = "$PORT ${PORT} $HOME ${SHOAL_URL_B} ${A} $$HOME ${NO:-$PORT}"
    assert interpolate(text, lookup, command=True).text == "$PORT ${PORT} $HOME ${SHOAL_URL_B} 1 $HOME $PORT"


def test_a_command_needs_no_default_for_its_port() -> None:
    """PORT has a value whenever a replica starts, so a default could only mislead."""
    with pytest.raises(InterpolationError) as caught:
        interpolate("${PORT:-8000}", lookup, command=True)
    assert caught.value.remedy == "write $PORT alone"


def test_the_port_is_unknown_elsewhere() -> None:
    """`$PORT` outside of a command is the file reader's own variable, and most likely a slip."""
    with pytest.raises(InterpolationError) as caught:
        interpolate("$PORT", lookup)
    assert caught.value.remedy == "it is known when a replica starts, and can stand in command alone"


def test_it_is_known_which_variables_were_put_in() -> None:
    """`config --origin` says so."""
    assert interpolate("${A} ${NO:-x} ${EMPTY-}", lookup).variables == (("A", "environment"), ("EMPTY", "environment"))


@given(st.text(alphabet="${}ABNO_:-?+ 1", max_size=40), st.booleans())
def test_any_text_is_put_together_or_refused(text: str, command: bool) -> None:
    """Nothing else can happen, and a refusal says where."""
    try:
        interpolate(text, lookup, command=command)
    except InterpolationError as error:
        assert 0 <= error.offset < len(text)

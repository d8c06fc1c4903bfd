"""YAML with places: what YAML 1.2 reads, and what is refused before anything else is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.spec.nodes import Block, block_data, plain_data, spot_of
from shoal.spec.reading import MOST_NODES, Refused, parse_yaml, resolve_scalar


def read(text: str) -> Any:
    node, problems = parse_yaml(text, "f.yaml")
    assert not problems, problems
    return plain_data(node) if node is not None else None


def refusal(text: str) -> str:
    with pytest.raises(Refused) as caught:
        parse_yaml(text, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("12:30:00", "12:30:00"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("2001-01-01", "2001-01-01"),
        ("1" * 50, "1" * 50),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """No truth in `no`, no base 60 and no silent octal."""
    assert resolve_scalar(text) == value
    assert type(resolve_scalar(text)) is type(value)


def test_quotes_make_text() -> None:
    """What is quoted is text, whatever it looks like."""
    assert read("{a: '8', b: \"true\", c: !!str 8, d: |\n  8\n}".replace("|\n  8\n", '"8"')) == {
        "a": "8", "b": "true", "c": "8", "d": "8",
    }  # fmt: skip


def test_a_key_twice_is_refused_with_both_places() -> None:
    """PyYAML lets the second of two keys win in silence."""
    _, problems = parse_yaml("a:\n  b: 1\n  c: 2\n  b: 3\n", "f.yaml")
    assert [str(problem) for problem in problems] == [
        "f.yaml:4:3: a.b: the key stands here a second time; it stands at 2:3 too (keep one of them)"
    ]


def test_merge_keys_are_those_of_compose() -> None:
    """What is written beside `<<` wins, then the earlier of several mappings; the rest is merged in."""
    text = """\
x-a: &a {one: 1, two: 1}
x-b: &b {two: 2, three: 2}
c: {<<: [*a, *b], one: 3}
d: {<<: *b}
"""
    document = read(text)
    assert document["c"] == {"one": 3, "two": 1, "three": 2}
    assert document["d"] == {"two": 2, "three": 2}


def test_merged_values_know_their_anchor() -> None:
    """A value that was merged in stands where its anchor is."""
    node, _ = parse_yaml("x: &x\n  a: 1\nb:\n  <<: *x\n", "f.yaml")
    assert node is not None
    spot = spot_of(node, ("b", "a"))
    assert (spot.line, spot.column) == (2, 6)


def test_merging_what_is_no_mapping_is_refused() -> None:
    """`<<: 3` says nothing."""
    _, problems = parse_yaml("a:\n  <<: 3\n", "f.yaml")
    assert str(problems[0]) == "f.yaml:2:7: a.<<: << merges what is no mapping; expected an alias of one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "f.yaml:2:1: this is not YAML: did not find expected ',' or ']' while parsing a flow sequence"),
        (
            "{a: ${X}}",
            "f.yaml:1:6: this is not YAML: did not find expected ',' or '}' while parsing a flow mapping"
            " (${...} needs quotes within brackets)",
        ),
        ("a: b: c", "f.yaml:1:5: this is not YAML: mapping values are not allowed in this context"),
        ("a:\n\tb: 1", "f.yaml:2:1: a tab can't indent YAML (write spaces instead)"),
        ("a:\n  \tb: 1", "f.yaml:2:3: a tab can't indent YAML (write spaces instead)"),
        (
            "a: @b",
            "f.yaml:1:4: this is not YAML: found character that cannot start any token"
            " while scanning for the next token",
        ),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document starts here; expected one document a file"),
        ("a: &x [*x]", "f.yaml:1:8: the alias *x has no anchor &x that ends before it"),
        ("a: \x01", "f.yaml:1:4: the character U+0001 can't stand in YAML (write it as an escape, in double quotes)"),
        ("? [a]\n: 1", "f.yaml:1:3: a list or mapping stands where a key was expected"),
        ("[" * 200, "f.yaml:1:101: lists and mappings are nested deeper than 100 levels here"),
    ],
)
def test_what_is_not_yaml_has_a_place(text: str, message: str) -> None:
    """A syntax error is one problem like any other."""
    assert refusal(text) == message


def test_depth_costs_no_stack() -> None:
    """A file of brackets is refused; composing it would end the process."""
    assert "nested deeper" in refusal("[" * 300_000)


def test_aliases_can_not_multiply_without_end() -> None:
    """Ten lines of ten aliases each would be ten thousand million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert f"more than {MOST_NODES} values" in refusal("\n".join(lines))


def test_unknown_tags_are_refused_with_the_way_out() -> None:
    """Compose's `!reset` is `null` here."""
    _, problems = parse_yaml("a: !reset 1\nb: !x {}\n", "f.yaml")
    assert [str(problem) for problem in problems] == [
        "f.yaml:1:4: the tag !reset is not known here (null deletes and lists replace, without a tag)",
        "f.yaml:2:4: the tag !x is not known here (remove it)",
    ]


def test_an_empty_file_is_no_document() -> None:
    """Nothing but comments is nothing."""
    assert read("# nothing\n") is None


def test_tree_and_data_agree() -> None:
    """The tree says what the text says."""
    node, _ = parse_yaml("a: {b: [1, x]}", "f.yaml")
    assert isinstance(node, Block)
    assert block_data(node) == {"a": {"b": [1, "x"]}}

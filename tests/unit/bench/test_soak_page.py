"""The page of the campaigns: sections in order, and those of other runs kept."""

from __future__ import annotations

from bench.soak import HEAD, shown, with_section


def test_a_section_is_put_in_its_place_and_others_stay() -> None:
    page = with_section("", "rolling", "## rolling\n\nfirst\n")
    page = with_section(page, "kills", "## kills\n\nsecond\n")
    page = with_section(page, "rolling", "## rolling\n\nthird\n")

    assert page == f"{HEAD}\n## kills\n\nsecond\n\n## rolling\n\nthird\n"


def test_a_table_stays_a_table() -> None:
    text = shown(["bench.kills", "--times", "1"], "seed 1\n| a |\n|---|\n| 1 |\n")

    assert text == "    $ python -m bench.kills --times 1\n    seed 1\n\n| a |\n|---|\n| 1 |"

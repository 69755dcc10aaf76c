"""What each combination runs, against the files that a reviewer read.

Write them again with `python -m tests.unit.sparkfleet.release.golden`.
"""

from __future__ import annotations

import pytest

from tests.unit.sparkfleet.release import golden
from tests.unit.sparkfleet.release.combos import CATALOG, every

A = {"t1": {"p, m": "one\ntwo\n", "p, n": "refused: a-rule\n"}}


def test_every_combination_renders_what_its_golden_file_says() -> None:
    found = golden.changes(golden.written(), golden.rendered_now())
    assert not found, golden.report(found)


def test_every_combination_of_the_catalogue_has_its_section() -> None:
    held = {(tag, name) for tag, sections in golden.written().items() for name in sections}
    assert held == {(tag, f"{profile}, {model}") for profile, tag, model in every()}
    assert len(held) == len(CATALOG.profiles) * len(CATALOG.images) * len(CATALOG.models)


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ({}, []),
        ({"p, m": "one\n2\n"}, ["t1: p, m\n  -two\n  +2"]),
        ({"p, n": "one\n"}, ["t1: p, n\n  -refused: a-rule\n  +one"]),
        ({"p, o": "one\n"}, ["t1: p, o\n  +one"]),
        (
            {"p, m": "".join(f"{number}\n" for number in range(20))},
            ["t1: p, m\n  -one\n  -two\n  " + "\n  ".join(f"+{n}" for n in range(10)) + "\n  … 10 more lines"],
        ),
    ],
)
def test_a_failure_names_tag_and_section_with_a_short_diff(now: dict[str, str], found: list[str]) -> None:
    assert golden.changes(A, {"t1": {**A["t1"], **now}}) == found


def test_a_lost_section_and_a_lost_tag_are_differences() -> None:
    assert golden.changes(A, {"t1": {"p, m": "one\ntwo\n"}}) == ["t1: p, n\n  -refused: a-rule"]
    assert golden.changes(A, {}) == ["t1: p, m\n  -one\n  -two", "t1: p, n\n  -refused: a-rule"]


def test_a_long_report_is_cut() -> None:
    lines = golden.report([f"t{number}: p, m" for number in range(8)]).splitlines()
    assert lines[0].startswith("8 sections differ")
    assert lines[-1] == "… 3 more sections"
    assert len(lines) == 7


def test_a_file_is_read_as_it_was_written() -> None:
    assert golden.parsed(golden.joined(A["t1"])) == A["t1"]

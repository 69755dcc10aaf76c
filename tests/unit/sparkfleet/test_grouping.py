"""What is said of many hosts: each thing once, with the range of its figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.grouping import grouped, lines, merged


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["12.5 GiB are free"], "12.5 GiB are free"),
        (["12.5 GiB are free", "9 GiB are free", "30 GiB are free"], "9–30 GiB are free"),
        (["2 of 4 disks", "3 of 4 disks"], "2–3 of 4 disks"),
    ],
)
def test_figures_become_ranges(texts: list[str], says: str) -> None:
    assert merged(texts) == says


@pytest.mark.parametrize(
    "pair",
    [
        ("driver 580.95.05", "driver 580.95.06"),
        ("release 8f2a4a0e6b3d358b", "release 8f2a4a0e6b3d358c"),
        ("at 2026-11-22T10:00:00Z", "at 2026-11-23T10:00:00Z"),
        ("10.0.0.1 answers", "10.0.0.2 answers"),
        ("no GPU", "no Docker"),
    ],
)
def test_names_versions_addresses_and_times_are_no_figures(pair: tuple[str, str]) -> None:
    assert [text for _, text in grouped(zip("ab", pair, strict=True))] == list(pair)


def test_a_thing_that_is_said_of_all_names_nobody() -> None:
    said = [(name, "no GPU") for name in "abc"] + [("a", "1 GB free"), ("b", "2 GB free")]
    assert lines(said, 3) == ["all 3 hosts: no GPU", "a, b: 1–2 GB free"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.text("ab 0123456789.", max_size=12)), max_size=20))
def test_nobody_is_lost(said: list[tuple[str, str]]) -> None:
    found = grouped(said)
    assert {name for names, _ in found for name in names} == {name for name, _ in said}
    assert len(found) <= len(said)

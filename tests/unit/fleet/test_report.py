"""The table at the end: a state a word, figures where there are some, aligned columns."""

from __future__ import annotations

from typing import Any

import pytest

from sparkfleet.report import HEADINGS, host_row, state_of, table

FLEET: dict[str, Any] = {
    "current": "0123456789abcdef",
    "verified": "0123456789abcdef",
    "serving": {"release": "0123456789abcdef", "unit": "active", "drift": []},
    "activation": None,
    "last": {"state": "committed"},
    "proof": {
        "figures": {
            "acceptance-short": {"figure": 0.6},
            "mean-acceptance-length-short": {"figure": 7.0},
        },
        "load_s": 41.7,
    },
    "release": {
        "image_tag": "2026-06-11-pr41703",
        "digest": "sha256:09c83d0000000000",
        "drafter_backend": "flash_attn",
        "prefix_caching": True,
    },
}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "verified"),
        ({"verified": "other"}, "unverified"),
        ({"serving": {"unit": "active", "drift": ["image"]}}, "drift"),
        ({"serving": {"unit": "failed", "drift": []}}, "stopped (failed)"),
        ({"activation": {"state": "probing"}}, "probing"),
        ({"current": None}, "unprovisioned"),
        ({"current": None, "last": {"state": "failed"}}, "failed"),
    ],
)
def test_states(changes: dict[str, Any], state: str) -> None:
    assert state_of({"fleet": {**FLEET, **changes}}) == state


def test_a_host_without_an_answer() -> None:
    assert state_of({"error": "x"}) == "no answer"


def test_the_row_of_a_verified_host() -> None:
    row = dict(zip(HEADINGS, host_row("spark-1", {"fleet": FLEET}), strict=True))
    assert row["acceptance"] == "60.0 %"
    assert row["MAL"] == "7.00"
    assert row["load"] == "42 s"
    assert row["digest"] == "09c83d000000"
    assert row["prefix cache"] == "on"


def test_a_bare_host_shows_dashes() -> None:
    row = host_row("spark-9", {"fleet": {}})
    assert row[:2] == ("spark-9", "unprovisioned")
    assert set(row[2:]) == {"–"}


def test_columns_line_up() -> None:
    lines = table(HEADINGS, [host_row("spark-1", {"fleet": FLEET}), host_row("a-much-longer-name", {"fleet": {}})])
    starts = {line.index("verified") if "verified" in line else line.index("unprovisioned") for line in lines[1:]}
    assert len(starts) == 1

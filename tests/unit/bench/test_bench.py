"""What the benchmarks make of what they read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.bench.measure import interleaved, ratio
from tests.bench.rolling import Rolled, waves


def journal(activation: str, *rows: tuple[str, str]) -> str:
    return "".join(
        json.dumps({"activation": activation, "state": state, "t": f"2026-11-23T10:00:{second}.000Z"}) + "\n"
        for state, second in rows
    )


def test_activations_that_overlap_are_one_wave_and_older_ones_are_none() -> None:
    old = journal("old", ("draining", "00"), ("committed", "01"))
    canary = old + journal("a", ("leased", "09"), ("draining", "10"), ("draining", "11"), ("committed", "20"))
    second = journal("b", ("draining", "22"), ("committed", "30"))
    third = journal("c", ("draining", "23"), ("committed", "34"))
    assert waves([canary, second, third]) == [10, 12]


def test_what_the_controller_adds_is_shared_by_the_waves() -> None:
    rolled = Rolled(26, [10, 12])
    assert (rolled.added, round(rolled.ratio, 2)) == (2, 1.18)


def test_commands_take_turns_and_the_first_round_is_not_measured(tmp_path: Path) -> None:
    said: list[str] = []
    python = [sys.executable, "-c", "pass"]
    found = interleaved({"one": python, "two": python}, 2, tmp_path, said.append, lambda: 3, {"two": 1})
    assert said == ["one", "one", "two", "one"]
    assert (len(found["one"].wall), len(found["two"].wall), found["one"].remote_commands) == (2, 1, [3, 3])
    assert ratio(found["one"], found["one"]) == 1


def test_a_command_that_fails_ends_the_measurement_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="one ended with 3: no such host"):
        interleaved({"one": [sys.executable, "-c", "import sys; print('no such host'); sys.exit(3)"]}, 1, tmp_path)

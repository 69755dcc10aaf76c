"""What the real sparkrun makes of every recipe that is exported."""

from __future__ import annotations

import json
import shlex

import pytest

from sparkfleet.interop import EXPORTS
from sparkfleet.release.release import Compiled
from tests.contract import real_sparkrun
from tests.unit.sparkfleet.release.combos import rendered

pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(real_sparkrun.python() is None, reason="sparkrun needs Python 3.12, and this machine has none"),
]


@pytest.fixture(scope="module")
def readings() -> list[tuple[Compiled, real_sparkrun.Reading]]:
    """One release of each kind of command line."""
    kinds = {(outcome.recipe.arguments, tuple(outcome.recipe.env.items())): outcome for outcome in rendered().values()}
    outcomes = list(kinds.values())
    return list(zip(outcomes, real_sparkrun.read([EXPORTS["sparkrun"](outcome) for outcome in outcomes]), strict=True))


def test_it_finds_nothing_to_warn_of(readings: list[tuple[Compiled, real_sparkrun.Reading]]) -> None:
    serious = {issue for _, reading in readings for issue in reading.issues if issue[0] != "suggestion"}
    assert serious == set()


def test_it_finds_the_drafter_and_its_revision(readings: list[tuple[Compiled, real_sparkrun.Reading]]) -> None:
    with_drafter = 0
    for compiled, reading in readings:
        drafters = [one for one in compiled.release.artefacts if one.role == "drafter"]
        if drafters:
            commit = drafters[0].commit
            assert reading.drafter == (drafters[0].repo, None if commit == "unlocked" else commit)
            with_drafter += 1
        else:
            assert reading.drafter[0] is None
    assert with_drafter > 10


def test_it_starts_what_the_release_starts(readings: list[tuple[Compiled, real_sparkrun.Reading]]) -> None:
    for compiled, reading in readings:
        recipe = compiled.recipe
        words = shlex.split(reading.command.replace("\\\n", " "))
        expected = [recipe.line.entrypoint, *compiled.release.container.args]
        theirs, ours = _comparable(words), _comparable(expected)
        commit = compiled.release.artefacts[0].commit
        assert theirs.pop("--revision", None) == (None if commit == "unlocked" else [commit])
        for document in (theirs.get("--speculative-config"), ours.get("--speculative-config")):
            if document:
                config = json.loads(str(document[0]))
                document[0] = {key: value for key, value in config.items() if key not in ("model", "revision")}
        assert theirs == ours


def _comparable(words: list[str]) -> dict[str, list[object]]:
    """Sort a command by its flags; numbers compare as numbers, and the model is the only thing that may differ."""
    flags: dict[str, list[object]] = {}
    last = "program"
    for word in words:
        if word.startswith("--"):
            last = word
            flags[last] = []
        else:
            number = word.replace(".", "", 1)
            flags.setdefault(last, []).append(float(word) if number.isdigit() else word)
    flags["program"] = flags["program"][:2]
    flags.pop("--model-path", None)
    return flags

"""SGLang's real argument parser on the recipe that the catalogue renders, and on its recorded contract."""

from __future__ import annotations

import pytest

from sparkfleet.catalog.contract_table import read_table
from tests.sglang.environment import VERSION, ask, dump
from tests.unit.sparkfleet.release.combos import MODEL, rendered

RECIPES = {names: outcome for names, outcome in rendered().items() if outcome.recipe.engine.kind == "sglang"}


def test_the_recorded_contract_is_what_sglang_states() -> None:
    assert dump() == read_table("sglang").recording(VERSION)


def test_every_rendered_recipe_is_accepted() -> None:
    assert MODEL in {model for _, _, model in RECIPES}
    for names, outcome in RECIPES.items():
        done = ask(*outcome.recipe.arguments)
        assert done.returncode == 0, (names, done.stderr)


@pytest.mark.parametrize(
    "words", [["--gpu-memory-utilization", "0.8"], ["--port", "http"], ["--tool-call-parser", "x"]]
)
def test_vllm_s_arguments_and_wrong_values_are_refused(words: list[str]) -> None:
    done = ask("--model-path", "/models/gemma4", *words)
    assert done.returncode == 2
    assert "error: " in done.stderr

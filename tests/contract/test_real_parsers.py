"""What the compiler renders, put to real vLLM parsers, and each known mistake to the parsers and to the rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.catalog.arguments import read_arguments
from sparkfleet.catalog.catalog import Catalog
from sparkfleet.catalog.contract import contract_for
from sparkfleet.errors import RefusedError
from sparkfleet.release.deepcheck import PROGRAM, expectation
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Compiled, compile_release
from sparkfleet.release.rules import Deployment
from tests.contract import card as table
from tests.contract.real_parser import FIXTURES, check
from tests.contract.test_real_parser import DEEP
from tests.contract.venv import ensure, quiet_environment
from tests.lab import labmodels
from tests.unit.sparkfleet.release.combos import CATALOG, CURRENT, MODEL, TRIAL, compiled, rendered


def distinct(model: str | None = None) -> dict[tuple[str, ...], Compiled]:
    """The rendered vLLM command lines, each once."""
    return {
        outcome.recipe.arguments: outcome
        for names, outcome in rendered().items()
        if outcome.recipe.engine.kind == "vllm" and model in (None, names[2])
    }


@pytest.mark.parametrize("version", DEEP)
def test_the_engine_would_be_configured_as_the_recipe_says(version: str) -> None:
    recipes = [outcome.recipe for outcome in distinct(MODEL).values() if version in outcome.recipe.contract.basis]
    results = check(version, [recipe.arguments for recipe in recipes], deep=True)
    for recipe, result in zip(recipes, results, strict=True):
        assert result.ok, (recipe.choice, result.error)
        assert result.resolved["max_model_len"] == recipe.max_model_len
        assert result.resolved["prefix_caching"] is (recipe.args.get("enable_prefix_caching") is not False)
        speculative = result.resolved["speculative"]
        assert (speculative is not None) is (recipe.speculative is not None)
        if speculative:
            assert speculative["method"] == "dflash"
            assert speculative["attention_backend"].lower() == (recipe.speculative or {})["attention_backend"]


def ours(words: list[str]) -> str | None:
    """What this project says to a command line that was written by hand, or None when it has nothing against it."""
    contract = contract_for("0.22.1")
    reading, card = read_arguments(contract, words), read_arguments(contract, table.card())
    if reading.problems:
        return reading.problems[0][0]
    if len(reading.positional) != 1:
        return "positional"
    keys = [key for key in reading.values if key != "speculative_config"]
    overrides = {key: reading.values[key] for key in keys if reading.values[key] != card.values.get(key)}
    overrides |= {key: None for key in card.values if key not in reading.values}
    rows = CATALOG.model_dump(by_alias=True)
    rows["profiles"]["agentic"]["speculative_args"] = json.loads(reading.values["speculative_config"])
    asked = Choice(MODEL, CURRENT, "agentic", "gb10", overrides=overrides)
    try:
        compile_release(Catalog.model_validate(rows), None, asked, Deployment(trial=True))
    except RefusedError as error:
        return error.found.splitlines()[1].partition(":")[0]
    return None


@pytest.mark.parametrize(
    ("name", "words", "layer"), [row[:3] for row in table.MISTAKES], ids=[r[0] for r in table.MISTAKES]
)
def test_each_known_mistake_is_caught_by_the_parser_or_by_a_rule(
    name: str, words: list[str], layer: str | None
) -> None:
    found = ours(words)
    # What only a start would find must be found by the rules; the rest is the parser's, and usually ours as well.
    if layer in (None, "engine_config"):
        assert found, f"neither the parser nor a rule finds {name}"


def test_the_card_s_own_command_has_nothing_against_it() -> None:
    assert ours(table.card()) is None


def test_two_gpus_on_one_are_caught_though_the_engine_s_configuration_takes_them() -> None:
    assert ours(table.card(tensor_parallel_size="2")) == "tensor-parallel"


def deep_checked(folder: Path, expected: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [str(ensure("0.22.1")), "-c", PROGRAM.read_text(encoding="utf-8"), json.dumps(expected)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=quiet_environment("0.22.1"),
        cwd=folder,
    )
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def synced(folder: Path) -> dict[str, Any]:
    """A synced pair of tiny configurations, and what the deep check expects of them."""
    paths = {}
    for role in ("target", "drafter"):
        place = folder / role
        place.mkdir()
        for file in (FIXTURES / role).iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        paths[role] = str(place)
    for name, data in labmodels.files_of(labmodels.MODELS[0]).items():
        if name.startswith("tokenizer"):
            (folder / "target" / name).write_bytes(data)
    expected = expectation(compiled().recipe, paths)
    # The tiny target has no images to preprocess.
    expected["parts"][0]["processor"] = False
    return expected


def test_the_deep_check_loads_a_synced_model_with_the_image_s_transformers(tmp_path: Path) -> None:
    code, document = deep_checked(tmp_path, synced(tmp_path))
    assert (code, document["problems"]) == (0, [])
    assert [line.split()[0] for line in document["loaded"]] == ["config", "tokenizer", "config"]


def test_the_deep_check_names_what_does_not_load(tmp_path: Path) -> None:
    expected = synced(tmp_path)
    (tmp_path / "drafter" / "config.json").write_text("{}")
    (tmp_path / "target" / "generation_config.json").write_text('{"eos_token_id": 1}')
    code, document = deep_checked(tmp_path, expected)
    assert code == 1
    problems = "\n".join(document["problems"])
    assert "eos_token_id is [1], expected [1, 106, 50, 98, 100, 101]" in problems
    assert "config: ValueError" in problems


def test_trial_and_deploy_render_the_same_arguments() -> None:
    settled = Deployment(allow_unauthenticated="a test", terms_accepted=True)
    asked = Choice(MODEL, CURRENT, "agentic", "gb10")
    look, deploy = (compile_release(CATALOG, None, asked, how).argv for how in (TRIAL, settled))
    assert look == deploy

"""What real vLLMs say to the model card's command, to the mistakes that people make in it, and to every recipe.

The table of mistakes is the reason for the product's own lint: whatever is accepted here, or refused only by a layer
that needs the model, no parser will catch before a start. Each version's parser is the judge of the recorded one.
"""

from __future__ import annotations

import pytest

from sparkfleet.catalog.arguments import read_arguments
from sparkfleet.catalog.contract import contract_for, recorded_versions
from sparkfleet.catalog.contract_table import read_table
from tests.contract.asked import asked, recipes, samples
from tests.contract.card import MISTAKES, card
from tests.contract.real_parser import Result, check
from tests.contract.venv import BUILDS
from tests.unit.sparkfleet.release.combos import CATALOG

# Building the engine's configuration takes model folders and a minute: the card's version, and the one that can serve.
DEEP = ("0.22.1", "0.32.0")
# What only the engine refuses, and not its parser: the recorded choices are the engine's.
ENGINE_S_CHOICES = {"--load-format": recorded_versions(), "--kv-cache-dtype": ("0.33.0",)}
FOUND_LATER = {("a cache type that is none", "0.33.0")}
# Read by code of their own: a file that must be there, and JSON or NAME=PATH.
UNTYPED = ("--config", "--lora-modules")


@pytest.fixture(scope="module", params=BUILDS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=DEEP)
def deep(request: pytest.FixtureRequest) -> list[Result]:
    return check(str(request.param), [card(), *(argv for _, argv, _, _ in MISTAKES)], deep=True)


def test_every_recorded_version_can_be_had_again() -> None:
    assert sorted(BUILDS) == sorted(recorded_versions())


def test_the_recorded_contract_is_what_vllm_states(version: str) -> None:
    assert asked(version).recording == read_table("vllm").recording(version)


def test_the_parser_accepts_the_card_s_command(version: str) -> None:
    assert asked(version).results[tuple(card())] == Result(ok=True, layer=None, error=None)


def test_the_parser_accepts_every_recipe_that_is_rendered_for_it(version: str) -> None:
    lines = recipes(version)
    runs_it = any(CATALOG.line_of(image).engine_version == version for image in CATALOG.images.values())
    assert bool(lines) is runs_it
    results = asked(version).results
    assert {line: results[line].error for line in lines if not results[line].ok} == {}


def test_the_recorded_parser_judges_as_the_real_one(version: str) -> None:
    contract, results = contract_for(version), asked(version).results
    wrong = []
    for line in (words for words in samples() if words[1] not in UNTYPED):
        problems = [found for found in read_arguments(contract, line).problems if found[0] != "flag-abbreviated"]
        accepted = results[line].layer != "argparse"
        by_the_engine = version in ENGINE_S_CHOICES.get(line[1], ())
        if accepted is bool(problems) and not (accepted and by_the_engine):
            wrong.append((line, results[line].error, problems))
    assert wrong == []


def test_the_parser_catches_the_mistakes_that_are_a_parser_s(version: str) -> None:
    results = asked(version).results
    for name, argv, layer, _ in MISTAKES:
        engine_s = layer == "engine_config" or (layer == "argparse" and (name, version) in FOUND_LATER)
        assert results[tuple(argv)].layer == (None if engine_s else layer), name


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[name for name, *_ in MISTAKES])
def test_each_mistake_is_caught_by_its_layer_and_no_earlier(number: int, deep: list[Result]) -> None:
    _, _, layer, words = MISTAKES[number]
    result = deep[number + 1]
    assert (result.layer, result.ok) == (layer, layer is None), result.error
    assert words in (result.error or "")


def test_the_engine_would_be_configured_as_the_card_says(deep: list[Result]) -> None:
    assert (deep[0].error, deep[0].layer) == (None, None)
    assert deep[0].resolved == {
        "max_model_len": 262144,
        "attention_backend": "TRITON_ATTN",
        "prefix_caching": True,
        "chunked_prefill": True,
        "speculative": {
            "method": "dflash",
            "num_speculative_tokens": 10,
            "attention_backend": "FLASH_ATTN",
            "architectures": ["DFlashDraftModel"],
        },
    }

"""The KV cache against what engines reported, and what is refused for the want of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparkfleet.errors import FleetError
from sparkfleet.release.capacity import GIB, Capacity, Shape, capacity, request_bytes
from sparkfleet.release.recipe import Choice, compile_recipe
from sparkfleet.release.release import compile_release
from tests.unit.sparkfleet.release.combos import CATALOG, CURRENT, MODEL, TRIAL, choice, compiled

DENSE, AWQ = "gemma4-31b-deckard-awq", "2026-07-27-v0.26.0"
TARGET = [(Shape(8192, (8, 256), 1024), 25), (Shape(4096, (2, 512), None), 5)]
DRAFTER = [(Shape(4096, (8, 128), 2048), 4), (Shape(4096, (8, 128), None), 1)]


def held(asked: Choice) -> Capacity:
    found = capacity(compile_recipe(CATALOG, asked))
    assert isinstance(found, Capacity)
    return found


@pytest.mark.parametrize(
    ("layers", "gib", "tokens"),
    [(TARGET, 73.75, 838_359), ([*TARGET, *DRAFTER], 77.11, 791_907)],
    ids=["without the drafter", "with the drafter"],
)
def test_the_layout_is_the_one_that_vllm_0_26_reported_on_an_h200(
    layers: list[tuple[Shape, int]], gib: float, tokens: int
) -> None:
    needed = request_bytes(layers, 184_320, 2 * 32_768)
    # The engine prints the memory with two digits.
    assert gib * GIB / needed * 184_320 == pytest.approx(tokens, rel=2e-4)


def test_one_request_is_as_large_as_the_engine_said() -> None:
    assert request_bytes(TARGET, 184_320, 2 * 32_768) / GIB == pytest.approx(16.21, abs=0.005)


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (choice("production"), 726_000),
        (choice("agentic", AWQ, DENSE, gpu_memory_utilization=0.82, max_model_len=65_536), 61_960),
        (choice("agentic", AWQ, DENSE, gpu_memory_utilization=0.82, max_model_len=32_768), 61_960),
    ],
    ids=["the card", "a dense 31B", "a dense 31B, short"],
)
def test_published_figures_of_a_gb10_are_met_within_the_error_that_is_said(asked: Choice, tokens: int) -> None:
    found = held(asked)
    assert found.tokens == pytest.approx(tokens, rel=0.05)
    assert found.error == 0.10


def test_the_card_s_concurrency() -> None:
    found = held(choice("production"))
    assert found.concurrency == pytest.approx(3.94, rel=0.05)
    assert "may be off by 10%" in found.words()
    assert f"{found.tokens:,} tokens" in found.words()


def test_a_context_that_does_not_fit_is_refused_with_the_longest_that_does() -> None:
    with pytest.raises(FleetError) as refused:
        compiled("agentic", AWQ, DENSE)
    longest = held(choice("agentic", AWQ, DENSE)).largest
    assert "kv-capacity: one request of max_model_len 262,144 needs" in refused.value.text()
    assert f"max_model_len of at most {longest:,}" in refused.value.text()
    fits = held(choice("agentic", AWQ, DENSE, max_model_len=longest))
    assert fits.cache_bytes >= fits.request_bytes
    over = held(choice("agentic", AWQ, DENSE, max_model_len=longest + 64))
    assert over.cache_bytes < over.request_bytes


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"kv_cache_dtype": "fp8", "drafter_attention_backend": "triton_attn"}),
        ({"gpu_memory_utilization": 0.6}, {"gpu_memory_utilization": 0.7}),
        ({}, {"max_num_batched_tokens": 8192}),
        ({}, {"async_scheduling": False}),
        ({}, {"kv_cache_memory_bytes": "90G"}),
    ],
)
def test_what_makes_room_makes_room(less: dict[str, Any], more: dict[str, Any]) -> None:
    image = "2026-08-16-v0.27.1"
    assert held(choice("production", image, **less)).tokens < held(choice("production", image, **more)).tokens


def test_half_the_bytes_are_twice_the_tokens() -> None:
    full, half = (request_bytes([(Shape(size, (8, 256), None), 30)], 4096, 1) for size in (8192, 4096))
    assert full == 2 * half == 4096 * 8192 * 30


def test_pages_that_do_not_divide_are_padded() -> None:
    odd = request_bytes([(Shape(8192, (8, 256), None), 5), (Shape(3000, (1, 750), None), 5)], 160, 1)
    assert odd == 2 * 10 * 5 * 8192 * 16


def test_a_drafter_without_its_window_holds_whole_contexts() -> None:
    without = held(choice("production", "2026-06-04-pr44389"))
    assert without.tokens < held(choice("production", CURRENT)).tokens


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (choice(model="qwen3.5-27b-uncensored"), "the layers of qwen3.5-27b-uncensored are not in the catalogue"),
        (Choice(MODEL, "vllm-openai-0.32.0", "production", "rtx50"), "the memory of rtx50 is not one figure"),
        (choice(gpu_memory_utilization=None), "the share of the memory is not known"),
        (choice(kv_cache_dtype="turboquant_4bit_nc"), "the size of kv_cache_dtype turboquant_4bit_nc is not known"),
        (choice("sglang-baseline", "lmsysorg-sglang"), "the cache of sglang is not modelled"),
    ],
)
def test_what_cannot_be_told_is_said_to_be_unknown(asked: Choice, why: str) -> None:
    assert capacity(compile_recipe(CATALOG, asked)) == why


def test_the_plan_of_a_release_says_what_its_cache_holds_and_how_well_it_is_proven() -> None:
    proof, cache = compile_release(CATALOG, None, choice("production"), TRIAL).remarks()
    assert proof == f"image {CURRENT}: run on a GB10 by its maker (card, validated results, 2026-06-11)"
    assert cache.startswith("KV cache capacity: ")
    smaller = compile_release(CATALOG, None, choice("production"), TRIAL).remarks(100 * GIB)[1]
    assert smaller != cache


def test_a_tag_that_is_only_declared_is_not_taken_for_proven() -> None:
    declared = replace(choice("production", "2026-12-01-new"), image_line=CURRENT)
    assert compile_release(CATALOG, None, declared, TRIAL).remarks()[0].endswith("no run of it is known")

"""The catalogue's own check: nothing is wrong with it as it stands, and each kind of mistake in a row is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from sparkfleet.catalog.catalog import Catalog, load
from sparkfleet.cli.catalog_check import problems
from sparkfleet.cli.main import main

CURRENT, LINE = "2026-06-11-pr41703", "aeon-0.22"


def test_nothing_is_wrong_with_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(load()) == []
    assert main(["catalog", "check"]) == 0
    assert "0 problems" in capsys.readouterr().out


def cell(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(rows: dict[str, Any]) -> None:
        place = rows
        for key in path[:-1]:
            place = place.setdefault(key, {})
        if to is None:
            place.pop(path[-1])
        else:
            place[path[-1]] = to

    return change


MISTAKES: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    (
        "an argument that this version does not have",
        cell("lines", "aeon-0.23", "args", to={"prefix_match_unit": 16}),
        "lines.aeon-0.23.args.prefix_match_unit is no argument of vllm 0.23.0 (in versions from 0.26.0 on)",
    ),
    (
        "a value that its argument does not take",
        cell("lines", LINE, "args", to={"moe_backend": "cutlas"}),
        f"lines.{LINE}.args.moe_backend takes one of",
    ),
    (
        "a version without a recording",
        cell("lines", "aeon-0.27", "engine_version", to="0.28.0"),
        "lines.aeon-0.27.engine_version: the command line of vllm 0.28.0 (read from 0.27.1 and 0.29.0) was",
    ),
    (
        "an image's version without a recording",
        cell("images", CURRENT, "engine_version", to="0.28.0"),
        f"lines.{LINE}.engine_version: the command line of vllm 0.28.0",
    ),
    (
        "a cache type that this version does not know",
        cell("lines", LINE, "kv_cache_dtypes", to=["auto", "int4_per_token_head"]),
        f"lines.{LINE}.kv_cache_dtypes: --kv-cache-dtype takes one of",
    ),
    (
        "a variable that this version does not read",
        cell("lines", "aeon-0.24", "env", "VLLM_NVFP4_GEMM_BACKEND", to="x"),
        "lines.aeon-0.24.env.VLLM_NVFP4_GEMM_BACKEND is no variable of vllm 0.24.0 (in versions up to 0.23.0)",
    ),
    (
        "a variable that is not gone",
        cell("lines", "aeon-0.24", "env_removed", "VLLM_USE_FLASHINFER_SAMPLER", to="--moe-backend"),
        "lines.aeon-0.24.env_removed.VLLM_USE_FLASHINFER_SAMPLER is still a variable",
    ),
    (
        "a remedy that is no flag",
        cell("lines", "aeon-0.24", "env_removed", "VLLM_NVFP4_GEMM_BACKEND", to="--gemm-backend x"),
        "lines.aeon-0.24.env_removed.VLLM_NVFP4_GEMM_BACKEND names --gemm-backend, which is no flag",
    ),
    (
        "a method of speculation that is none",
        lambda rows: rows["lines"][LINE]["drafters"].update(dflsh=rows["lines"][LINE]["drafters"]["dflash"]),
        f"lines.{LINE}.drafters.dflsh is no method of vllm 0.22.1",
    ),
    (
        "a drafter backend that is none",
        cell("lines", LINE, "drafters", "dflash", "backend", to="flash_atn"),
        f"lines.{LINE}.drafters.dflash names flash_atn, which is no attention backend",
    ),
    (
        "a drafter backend that is refused as well",
        cell("lines", LINE, "drafters", "dflash", "refused_backends", "flash_attn", to="a reason"),
        f"lines.{LINE}.drafters.dflash.backend is flash_attn, which refused_backends refuses",
    ),
    (
        "a key that only the maker's build has",
        cell("lines", "aeon-dflash-v2", "adds", to={}),
        "lines.aeon-dflash-v2.drafters.dflash.backend is flash_attn, and the speculative config of vllm 0.20.1",
    ),
    (
        "a cell without a source",
        cell("images", CURRENT, "sources", to={"line": "card"}),
        f"images.{CURRENT}.sources has no entry for note, and no «*»",
    ),
    (
        "a source of no cell",
        cell("images", CURRENT, "sources", "digst", to="card"),
        f"images.{CURRENT}.sources has an entry for digst, which is no cell, did you mean 'digest'?",
    ),
    (
        "an empty source",
        cell("models", "gemma4-26b-a4b-nvfp4", "sources", "*", to=" "),
        "models.gemma4-26b-a4b-nvfp4.sources.* is empty",
    ),
    (
        "an image without a way back",
        cell("images", CURRENT, "rollback_to", to=None),
        f"images.{CURRENT}.rollback_to is missing",
    ),
    (
        "a way back that is a circle",
        cell("images", "2026-06-04-pr44389", "rollback_to", to=CURRENT),
        "images.2026-06-04-pr44389.rollback_to leads back to itself",
    ),
    (
        "one digest of two images",
        cell(
            "images",
            "2026-07-16-v0.25.1",
            "digest",
            to="sha256:1aa47363e4c9cfa0a85411c669d39b7f9fa3adb3e735ef1ca5760be3044dacd7",
        ),
        "images.2026-07-27-v0.26.0.digest is that of 2026-07-16-v0.25.1, too",
    ),
    (
        "a moving tag without a digest",
        cell("images", "vllm-openai-2026-05-06", "digest", to=None),
        "images.vllm-openai-2026-05-06 is whatever :latest is, with no digest",
    ),
    (
        "a line whose default profile is refused",
        cell("lines", LINE, "env", "VLLM_TEST_FORCE_FP8_MARLIN", to="1"),
        f"images.{CURRENT}: its default profile agentic is refused for gemma4-26b-a4b-nvfp4: marlin: ",
    ),
    (
        "a default profile with an argument that its image does not have",
        cell("profiles", "max-throughput", "args", "monokernel", to=True),
        "images.vllm-openai-2026-05-06: its default profile max-throughput is refused",
    ),
    (
        "an engine without a profile",
        lambda rows: rows["profiles"].pop("sglang-baseline"),
        "images.lmsysorg-sglang: the catalogue has no profile of its engine",
    ),
    (
        "a line without an image",
        lambda rows: rows["images"].pop("dflash-v2"),
        "lines.aeon-dflash-v2 has no image",
    ),
]


@pytest.mark.parametrize(("change", "found"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_in_a_row_is_named(change: Callable[[dict[str, Any]], None], found: str) -> None:
    rows = copy.deepcopy(load().model_dump(by_alias=True, exclude_unset=True))
    change(rows)
    assert [problem for problem in problems(Catalog.model_validate(rows)) if problem.startswith(found)] != []


def test_an_overlay_is_checked_with_the_rest(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images.yaml").write_text(
        "schema: 1\nimages:\n  new:\n    repository: acme/engine\n    line: aeon-0.27\n    state: candidate\n"
        "    sources: {'*': a test}\n"
    )
    assert main(["catalog", "check", "--catalog-overlay", str(tmp_path)]) == 1
    assert "problem: images.new.rollback_to is missing" in capsys.readouterr().out

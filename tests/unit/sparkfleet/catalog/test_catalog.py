"""A catalogue that cannot be used is refused with the file, the key and what is allowed there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import Catalog, load
from sparkfleet.errors import CatalogError

CATALOG = load()
IDS = {
    "profiles": {"agentic", "production", "short-context", "max-throughput", "stock-baseline", "nvfp4-kv"},
    "hardware": {"gb10", "rtx50"},
    "models": {
        "gemma4-26b-a4b-nvfp4",
        "gemma4-31b-deckard-awq",
        "gemma4-31b-deckard-svdquant",
        "qwen3.5-27b-uncensored",
    },
}


def with_change(folder: Path, stem: str, change: Any) -> Catalog:
    """The catalogue with one file changed."""
    base = folder / "catalog"
    base.mkdir()
    for file in (ROOT / "catalog").glob("*.yaml"):
        shutil.copy(file, base)
    path = base / f"{stem}.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document))
    return load((), base)


@pytest.mark.parametrize("section", IDS)
def test_the_ids_that_operators_use_are_there(section: str) -> None:
    assert IDS[section] <= set(getattr(CATALOG, section))


@pytest.mark.parametrize("section", ["lines", "images", "models", "profiles", "hardware"])
def test_every_cell_has_a_source(section: str) -> None:
    for row_id, row in getattr(CATALOG, section).items():
        assert row.sources.get("*"), row_id
        for cell in row.sources:
            assert cell == "*" or cell.split(".")[0] in type(row).model_fields, (row_id, cell)


def test_every_image_has_an_architecture_a_driver_and_a_known_rollback() -> None:
    for tag, image in CATALOG.images.items():
        line = CATALOG.line_of(image)
        assert line.architectures, tag
        assert line.min_driver, tag
        assert image.rollback_to is None or image.rollback_to in CATALOG.images, tag


def test_the_drafter_backend_and_prefix_caching_change_between_the_two_images_of_the_rollback_case() -> None:
    old, new = (CATALOG.line_of(CATALOG.images[tag]) for tag in ("2026-06-04-pr44389", "2026-06-11-pr41703"))
    assert old.drafters
    assert new.drafters
    assert (old.drafters["dflash"].backend, old.drafters["dflash"].prefix_caching) == ("flex_attention", "unsafe")
    assert (new.drafters["dflash"].backend, new.drafters["dflash"].prefix_caching) == ("flash_attn", "safe")


def test_variables_become_flags_at_0_24() -> None:
    before, after = (CATALOG.lines[line] for line in ("aeon-0.23", "aeon-0.24"))
    assert before.env["VLLM_NVFP4_GEMM_BACKEND"] == "flashinfer-cutlass"
    assert "VLLM_NVFP4_GEMM_BACKEND" not in after.env
    assert after.args == {"linear_backend": "flashinfer_cutlass", "moe_backend": "cutlass"}


def _set(*path: str, value: Any) -> Any:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


# (file, change, what the message must name)
BROKEN: list[tuple[str, Any, tuple[str, ...]]] = [
    ("images", _set("images", "dflash-v2", "stat", value="x"), ("images.yaml", "images.dflash-v2.stat", "state")),
    ("images", _set("images", "dflash-v2", "state", value="old"), ("images.dflash-v2.state", "'old'", "superseded")),
    ("images", _set("images", "dflash-v2", "line", value="aeon-9"), ("images.dflash-v2.line", "aeon-9", "aeon-0.22")),
    ("images", _set("images", "dflash-v2", "digest", value="sha256:1"), ("images.dflash-v2.digest", "sha256:[0-9a-f]")),
    ("images", _set("images", "dflash-v2", "rollback_to", value="v1"), ("rollback_to", "v1", "dflash-v2")),
    ("images", _set("lines", "sglang", "engine", value="tgi"), ("lines.sglang.engine", "'tgi'", "vllm")),
    ("models", _set("models", "qwen3.5-27b-uncensored", "revision", value="main"), ("revision", "'main'")),
    (
        "profiles",
        _set("profiles", "production", "inherits", value="agentc"),
        ("profiles.production", "agentc", "agentic"),
    ),
    ("profiles", _set("profiles", "agentic", "inherits", value="production"), ("profiles", "inherits itself")),
    ("profiles", _set("profiles", "agentic", "timing", "drain_s", value="soon"), ("timing.drain_s", "'soon'")),
    ("hardware", _set("hardware", "gb10", "limits", "gpus", value=None), ("hardware.gb10.limits.gpus",)),
    ("hardware", _set("hadrware", value={}), ("hardware.yaml", "'hadrware'", "did you mean 'hardware'")),
    ("images", _set("schema", value=2), ("images.yaml", "'schema'", "schema: 1")),
]


@pytest.mark.parametrize(("stem", "change", "named"), BROKEN, ids=[row[2][0] + "-" + row[2][-1] for row in BROKEN])
def test_a_mistake_names_file_key_and_allowed_values(
    tmp_path: Path, stem: str, change: Any, named: tuple[str, ...]
) -> None:
    with pytest.raises(CatalogError) as refused:
        with_change(tmp_path, stem, change)
    for part in named:
        assert part in refused.value.text()


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"models\.qwen3\.5-27b-uncensored\.repo: this key is missing"):
        with_change(tmp_path, "models", lambda document: document["models"]["qwen3.5-27b-uncensored"].pop("repo"))


def test_an_overlay_adds_rows_and_merges_known_ones(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text(
        "schema: 1\nimages:\n  '2026-06-11-pr41703': {state: superseded}\n"
        "  mine: {repository: example.org/mine, line: aeon-0.22, state: candidate, sources: {'*': me}}\n"
    )
    merged = load((tmp_path,))
    assert merged.images["2026-06-11-pr41703"].state == "superseded"
    assert merged.images["2026-06-11-pr41703"].repository == "ghcr.io/aeon-7/aeon-vllm-ultimate"
    assert merged.images["mine"].line == "aeon-0.22"


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.yaml").write_text("images: [")
    with pytest.raises(CatalogError, match=r"images\.yaml is not YAML"):
        load((tmp_path,))


def test_ways_back_lead_from_image_to_image_and_end() -> None:
    known = load()
    assert known.ways_back("2026-06-11-pr41703") == ["2026-06-04-pr44389"]
    assert known.ways_back("2026-06-04-pr44389") == []
    assert known.ways_back("unknown") == []
    assert all(tag not in known.ways_back(tag) for tag in known.images)

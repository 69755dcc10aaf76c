"""How the tests of this folder import a text, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparkfleet.catalog.catalog import load
from sparkfleet.errors import SettingsError
from sparkfleet.interop import ImportedProfile, import_recipe
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import Compiled, compile_release
from sparkfleet.release.rules import Deployment
from tests.unit.sparkfleet.release.combos import CATALOG

TARGET = "AEON-7/Gemma-4-26B-A4B-it-Uncensored-NVFP4"
DRAFTER = "z-lab/gemma-4-26B-A4B-it-DFlash"
IMAGE = "ghcr.io/aeon-7/aeon-vllm-ultimate:2026-06-18-v0.23.0-dflashfix"
SECRET = "sk-example-1234"


def ask(text: str, origin: str = "start.sh", **choice: Any) -> ImportedProfile:
    return import_recipe(text, origin, CATALOG, **choice)


def refused(text: str, origin: str = "start.sh", **choice: Any) -> str:
    with pytest.raises(SettingsError) as error:
        ask(text, origin, **choice)
    return error.value.text()


def given(imported: ImportedProfile) -> dict[str, Any]:
    """The arguments that the profile sets, without those that it takes away."""
    return {key: value for key, value in imported.row["args"].items() if value is not None}


def served(imported: ImportedProfile, folder: Path) -> Compiled:
    """The release that the printed profile gives, read from a file as an operator does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profiles.yaml").write_text(imported.text(), encoding="utf-8")
    assert imported.model is not None
    assert imported.image_tag is not None
    choice = Choice(imported.model, imported.image_tag, imported.profile_id, "gb10")
    return compile_release(load((folder,)), None, choice, Deployment(trial=True))

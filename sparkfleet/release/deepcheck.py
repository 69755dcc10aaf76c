"""A check of synced weights that only the serving image can make: its own Transformers loads configuration, tokenizer
and processor, and the token ids that end a text are the model's.

Pure: the `docker run` command and the program that it runs. No GPU, no network and no weights are needed.
"""

from __future__ import annotations

import json
from typing import Any

from sparkfleet import ROOT
from sparkfleet.release.recipe import Recipe
from sparknode.state.release import Release

PROGRAM = ROOT / "templates" / "deep_check.py"


def expectation(recipe: Recipe, container_paths: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the program is asked to prove; `container_paths` replaces a role's path."""
    paths, model = container_paths or {}, recipe.model
    target = {
        "path": paths.get("target", model.container_path),
        "trust_remote_code": model.trust_remote_code,
        "tokenizer": True,
        "processor": bool(model.artefact.required_files),
        "eos_token_ids": model.artefact.eos_token_ids,
    }
    if recipe.drafter is None:
        return {"parts": [target]}
    # A drafter has no tokenizer of its own: it reads the target's token ids.
    drafter = {**target, "path": paths.get("drafter", recipe.drafter.container_path)}
    return {"parts": [target, {**drafter, "tokenizer": False, "processor": False, "eos_token_ids": []}]}


def deep_check(recipe: Recipe, release: Release) -> list[str]:
    """Return the `docker run` command; it ends with 0 when everything loaded, and prints one JSON document."""
    argv = ["docker", "run", "--rm", "--network", "none", "-e", "HF_HUB_OFFLINE=1"]
    for artefact in release.artefacts:
        argv += ["-v", f"{artefact.host_path}:{artefact.container_path}:ro"]
    argv += ["--entrypoint", "python3", release.image.reference, "-c", PROGRAM.read_text(encoding="utf-8")]
    return [*argv, json.dumps(expectation(recipe), separators=(",", ":"))]

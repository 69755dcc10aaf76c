"""A check of synced weights that only the serving image can make: its own Transformers loads configuration, tokenizer
and processor, and the token ids that end a text are the model's.

Pure: the `docker run` command and the program that it runs. No GPU, no network and no weights are needed.
"""

from __future__ import annotations

import json
from typing import Any

from sparkfleet.recipe import Recipe

# Runs inside the image, whose Transformers differs from the controller's. config.json is read as JSON where a value
# is compared: since Transformers 5.23 some attributes of a loaded Gemma 4 configuration raise when they are read.
PROGRAM = """\
import json, pathlib, sys

expected = json.loads(sys.argv[1])
problems, loaded = [], []


def attempt(what, load):
    try:
        loaded.append(f"{what} {type(load()).__name__}")
    except Exception as error:
        problems.append(f"{what}: {type(error).__name__}: {error}")


import transformers

for part in expected["parts"]:
    folder = pathlib.Path(part["path"])
    options = {"trust_remote_code": part["trust_remote_code"], "local_files_only": True}
    attempt("config", lambda: transformers.AutoConfig.from_pretrained(folder, **options))
    if part["tokenizer"]:
        attempt("tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(folder, **options))
    if part["processor"]:
        attempt("processor", lambda: transformers.AutoProcessor.from_pretrained(folder, **options))
    if part["eos_token_ids"]:
        found = json.loads((folder / "generation_config.json").read_text()).get("eos_token_id")
        found = found if isinstance(found, list) else [found]
        if sorted(found, key=str) != sorted(part["eos_token_ids"], key=str):
            problems.append(f"generation_config.json: eos_token_id is {found}, expected {part['eos_token_ids']}")

print(json.dumps({"transformers": transformers.__version__, "loaded": loaded, "problems": problems}))
sys.exit(1 if problems else 0)
"""


def expectation(recipe: Recipe, container_paths: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the program is asked to prove; `container_paths` replaces a role's path."""
    paths = container_paths or {}
    model = recipe.model
    parts = [
        {
            "path": paths.get("target", model.container_path),
            "trust_remote_code": model.trust_remote_code,
            "tokenizer": True,
            "processor": bool(model.artefact.required_files),
            "eos_token_ids": model.artefact.eos_token_ids,
        }
    ]
    if recipe.speculative is not None and model.drafter is not None:
        # A drafter has no tokenizer of its own: it reads the target's token ids.
        parts.append(
            {
                "path": paths.get("drafter", model.drafter.container_path),
                "trust_remote_code": model.trust_remote_code,
                "tokenizer": False,
                "processor": False,
                "eos_token_ids": [],
            }
        )
    return {"parts": parts}


def deep_check(recipe: Recipe, release: dict[str, Any]) -> list[str]:
    """Return the `docker run` command; it ends with 0 when everything loaded, and prints one JSON document."""
    argv = ["docker", "run", "--rm", "--network", "none", "-e", "HF_HUB_OFFLINE=1"]
    for artefact in release["artefacts"]:
        argv += ["-v", f"{artefact['host_path']}:{artefact['container_path']}:ro"]
    argv += ["--entrypoint", "python3", str(release["image"]["reference"]), "-c", PROGRAM]
    return [*argv, json.dumps(expectation(recipe), separators=(",", ":"))]

"""The same model in Docker Model Runner on a workstation: the commands, and what they cannot express."""

from __future__ import annotations

import json
import shlex

from sparkfleet.errors import SettingsError
from sparkfleet.release.recipe import Recipe

# Docker Model Runner writes these parts of the engine's command line itself.
OWN = {"served_model_name", "host", "port", "max_model_len", "shutdown_timeout"}


def docker_model_commands(recipe: Recipe) -> str:
    """Return a shell script with comments (docs.docker.com/ai/model-runner; card, "Docker Model Runner")."""
    if recipe.engine.kind != "vllm":
        found = f"Docker Model Runner has no {recipe.engine.kind} backend"
        raise SettingsError(found, "an image with vLLM", "choose another --image-tag")
    reference = f"hf.co/{recipe.model.repo}"
    args, known = recipe.args, recipe.contract.flags
    flags = [word for key in sorted(args.keys() - OWN) for word in known[key].words(args[key])]
    lines = [
        f"# {recipe.choice.model} in Docker Model Runner, for a workstation: the nodes of a fleet never use it.",
        "docker model install-runner --backend vllm --gpu cuda",
        f"docker model pull {reference}",
        f"docker model configure --context-size {recipe.max_model_len} {reference} -- {shlex.join(flags)}",
        f"docker model run {reference} 'Say ready.'",
        "curl -s http://127.0.0.1:12434/engines/v1/models",
        "",
        "# What these commands cannot express, unlike a release:",
        *(f"# - {line}" for line in _inexpressible(recipe)),
    ]
    return "\n".join(lines) + "\n"


def _inexpressible(recipe: Recipe) -> list[str]:
    lines = [
        f"the image: the runner brings its own vLLM; this recipe is for {recipe.image.repository} "
        f"({recipe.choice.image_tag}, {recipe.line.engine} {recipe.line.engine_version})",
        "the revision of the weights: the newest one is pulled, without sizes and hashes that were agreed on",
        "several served names: the model answers under its reference alone, on port 12434",
        "when it is loaded: the first request loads it, five idle minutes unload it; a list of models proves nothing",
    ]
    if recipe.env:
        lines.append(f"environment variables: {', '.join(recipe.env)}")
    if recipe.speculative is not None:
        config = json.dumps(recipe.speculative, separators=(",", ":"))
        what = "the drafter, whose folder cannot be mounted" if recipe.drafter else "the speculation"
        lines.append(f"{what}: --speculative-config '{config}'")
    return lines

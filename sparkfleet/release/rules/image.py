"""Rules about what is run: the image, its place in the history, and the model's row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.catalog.contract import version_key
from sparkfleet.release.rules.book import Deployment, Problem

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe

_STATES = {"rollback": "a rollback image", "newer": "newer than the current one", "superseded": "superseded"}
SHELLS = ("bash", "sh", "/bin/bash", "/bin/sh", "/usr/bin/bash")


def image(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    choice, line, row = recipe.choice, recipe.line, recipe.image
    tag, architecture = choice.image_tag, recipe.hardware.architecture
    if architecture not in line.architectures:
        built = f"image {tag} is built for {', '.join(line.architectures)}"
        found = f"{built}, and hardware {choice.hardware} is {architecture}"
        yield "architecture", found, f"an image built for {architecture}"
    if line.entrypoint in SHELLS:
        yield "entrypoint", f"image {tag} would be started with {line.entrypoint}", "the engine's program"
    kv_dtype, body = recipe.args.get("kv_cache_dtype", "auto"), str(recipe.chosen("attention_backend")).lower()
    # The line's list is that of Triton attention; what another backend takes is known to the engine alone.
    if kv_dtype not in line.kv_cache_dtypes and body in ("triton_attn", "none"):
        found = f"kv_cache_dtype is {kv_dtype} on image {tag}"
        yield "kv-dtype-image", found, f"one of {', '.join(line.kv_cache_dtypes)}"
    if kind := _STATES.get(row.state):
        yield "image-state", f"image {tag} is {kind}", "current"
    if row.state == "candidate" and recipe.image_known:
        note = f": {row.note}" if row.note else ""
        yield "image-candidate", f"image {tag} is a candidate{note}", "an image that was seen to work"
    for caution in line.cautions:
        yield "engine-fault", f"image {tag} ({line.engine} {line.engine_version}): {caution}", ""
    if choice.image_line is not None:
        yield "image-undeclared", f"image {tag} is treated like {choice.image_line}", ""
    if row.digest is None and not deployment.image_locked:
        yield "image-digest", f"image {tag} has no digest in the catalogue or the lock", "a digest"


def model(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    row, named = recipe.model, f"model {recipe.choice.model}"
    if not row.repo_confirmed:
        yield "model-unconfirmed", f"{named}: repository {row.repo} is unconfirmed", ""
    yield from _loader(recipe)
    if row.terms and not deployment.terms_accepted:
        yield "terms", f"the terms of {row.repo} ({row.licence}) are not accepted", "terms_accepted"
    for repo in deployment.unchecked:
        yield "content-unchecked", f"what the files of {repo} hold is unknown: the lock has no record", ""


def _loader(recipe: Recipe) -> Iterator[Problem]:
    """Whether this engine can load the checkpoint at all."""
    row, version = recipe.model.loader, recipe.line.engine_version
    if row is None or recipe.image.line in row.lines:
        return
    named = f"model {recipe.choice.model} on image {recipe.choice.image_tag} ({recipe.line.engine} {version})"
    if version_key(version) < version_key(row.since):
        yield "model-loader", f"{named}: {row.why}", f"vLLM {row.since} or newer, as in {', '.join(row.lines)}"
    else:
        yield "model-unproven", f"{named}: {row.why}", f"an image of {', '.join(row.lines)}"

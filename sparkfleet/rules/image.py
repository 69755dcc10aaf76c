"""Rules about what is run: the image, its place in the history, and the model's row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.rules.book import Deployment, Problem

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

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
    kv_dtype = recipe.args.get("kv_cache_dtype", "auto")
    if kv_dtype not in line.kv_cache_dtypes:
        found = f"kv_cache_dtype is {kv_dtype} on image {tag}"
        yield "kv-dtype-image", found, f"one of {', '.join(line.kv_cache_dtypes)}"
    if row.state in ("rollback", "superseded"):
        yield "image-state", f"image {tag} is a {row.state} image", "current"
    if row.state == "candidate" and recipe.image_known:
        note = f": {row.note}" if row.note else ""
        yield "image-candidate", f"image {tag} is a candidate{note}", "a proven image"
    if choice.image_line is not None:
        yield "image-undeclared", f"image {tag} is treated like {choice.image_line}", ""
    if row.digest is None and not deployment.image_locked:
        yield "image-digest", f"image {tag} has no digest in the catalogue or the lock", "a digest"


def model(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    row, named = recipe.model, f"model {recipe.choice.model}"
    if not row.repo_confirmed:
        yield "model-unconfirmed", f"{named}: repository {row.repo} is unconfirmed", ""
    if row.unproven:
        yield "model-unproven", f"{named} on image {recipe.choice.image_tag}: {row.unproven}", ""
    if row.terms and not deployment.terms_accepted:
        yield "terms", f"the terms of {row.repo} ({row.licence}) are not accepted", "terms_accepted"

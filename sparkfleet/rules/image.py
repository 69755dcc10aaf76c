"""Rules about what is run: the image, its place in the history, and the model's row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.rules.book import Deployment, Problem, rule

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

SHELLS = ("bash", "sh", "/bin/bash", "/bin/sh", "/usr/bin/bash")


@rule("architecture")
def _architecture(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.hardware.architecture not in recipe.line.architectures:
        yield (
            f"image {recipe.choice.image_tag} is built for {', '.join(recipe.line.architectures)}, and hardware "
            f"{recipe.choice.hardware} is {recipe.hardware.architecture}",
            f"an image built for {recipe.hardware.architecture}",
        )


@rule("entrypoint")
def _entrypoint(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.line.entrypoint in SHELLS:
        yield f"image {recipe.choice.image_tag} would be started with {recipe.line.entrypoint}", "the engine's program"


@rule("kv-dtype-image")
def _kv_dtype_image(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.args.get("kv_cache_dtype", "auto")
    if value not in recipe.line.kv_cache_dtypes:
        allowed = ", ".join(recipe.line.kv_cache_dtypes)
        yield f"kv_cache_dtype is {value} on image {recipe.choice.image_tag}", f"one of {allowed}"


@rule("image-state")
def _image_state(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.image.state in ("rollback", "superseded"):
        yield f"image {recipe.choice.image_tag} is a {recipe.image.state} image", "current"


@rule("image-candidate")
def _image_candidate(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.image.state == "candidate" and recipe.image_known:
        note = f": {recipe.image.note}" if recipe.image.note else ""
        yield f"image {recipe.choice.image_tag} is a candidate{note}", "a proven image"


@rule("image-undeclared")
def _image_undeclared(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.choice.image_line is not None:
        yield f"image {recipe.choice.image_tag} is treated like {recipe.choice.image_line}", ""


@rule("image-digest")
def _image_digest(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    if recipe.image.digest is None and not deployment.image_locked:
        yield f"image {recipe.choice.image_tag} has no digest in the catalogue or the lock", "a digest"


@rule("model-unconfirmed")
def _model_unconfirmed(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if not recipe.model.repo_confirmed:
        yield f"model {recipe.choice.model}: repository {recipe.model.repo} is unconfirmed", ""


@rule("model-unproven")
def _model_unproven(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.model.unproven:
        yield f"model {recipe.choice.model} on image {recipe.choice.image_tag}: {recipe.model.unproven}", ""


@rule("terms")
def _terms(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    if recipe.model.terms and not deployment.terms_accepted:
        yield f"the terms of {recipe.model.repo} ({recipe.model.licence}) are not accepted", "terms_accepted"

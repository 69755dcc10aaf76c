"""Rules about speculative decoding: the drafter, its backend, its cache and the load that it bears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.rules.book import Deployment, Problem, rule

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

METHOD_HINTS = ("dflash", "eagle3", "dspark")


@rule("drafter-backend")
def _drafter_backend(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None:
        return
    backend = recipe.speculative.get("attention_backend")
    if backend != support.backend:
        reason = support.refused_backends.get(str(backend), "not the one that this image runs")
        tag = recipe.choice.image_tag
        yield f"the drafter's attention backend is {backend} on image {tag}: {reason}", support.backend or "not set"


@rule("drafter-unsupported")
def _drafter_unsupported(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.profile.speculative and recipe.model.drafter and recipe.line.drafter is None:
        yield (
            f"profile {recipe.choice.profile} uses the drafter, and image {recipe.choice.image_tag} cannot run it",
            "an image with a drafter, or a profile without",
        )


@rule("drafter-absent")
def _drafter_absent(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.profile.speculative and recipe.model.drafter is None:
        yield f"model {recipe.choice.model} has no drafter", ""


@rule("drafter-window")
def _drafter_window(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is not None and support is not None and not support.sliding_window:
        yield f"image {recipe.choice.image_tag} runs the drafter without its sliding window", ""


@rule("drafter-pair")
def _drafter_pair(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter, target = recipe.model.drafter, recipe.model.artefact
    if drafter is None or recipe.speculative is None:
        return
    pairs = (
        ("hidden size", drafter.hidden_size, target.hidden_size),
        ("vocabulary", drafter.vocab_size, target.vocab_size),
        ("number of target layers", drafter.num_target_layers, target.num_hidden_layers),
    )
    for name, ours, theirs in pairs:
        if ours is not None and theirs is not None and ours != theirs:
            yield f"{name} of the drafter is {ours}, of the target {theirs}", "equal"
    highest = max(drafter.target_layer_ids, default=0)
    if target.num_hidden_layers is not None and highest >= target.num_hidden_layers:
        yield f"the drafter reads layer {highest} of a target with {target.num_hidden_layers} layers", "a lower one"


@rule("drafter-path")
def _drafter_path(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.speculative is None:
        return
    path, method = str(recipe.speculative["model"]), str(recipe.speculative["method"])
    for hint in METHOD_HINTS:
        if hint in path.lower() and hint != method:
            yield (
                f"drafter path {path} makes vLLM choose method {hint} instead of {method}",
                f"a path without '{hint}'",
            )


@rule("speculative-method")
def _speculative_method(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.speculative is None or recipe.model.drafter is None:
        return
    method, made_for = str(recipe.speculative["method"]), recipe.model.drafter.method
    if method not in recipe.contract.spec_methods:
        yield f"speculative method {method}", f"one of {', '.join(sorted(recipe.contract.spec_methods))}"
    elif method != made_for:
        yield f"speculative method {method} with drafter {recipe.model.drafter.repo}", made_for


@rule("speculative-field")
def _speculative_field(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.speculative is None or recipe.line.drafter is None:
        return
    for key in recipe.speculative:
        if key not in recipe.contract.spec_fields:
            yield f"speculative config has '{key}'", f"one of {', '.join(sorted(recipe.contract.spec_fields))}"
    if "kv_cache_dtype" in recipe.speculative and not recipe.line.drafter.own_kv_cache_dtype:
        yield f"the drafter has a kv_cache_dtype of its own on image {recipe.choice.image_tag}", "vLLM 0.26 or newer"


@rule("speculative-tokens")
def _speculative_tokens(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter = recipe.model.drafter
    if recipe.speculative is None or drafter is None:
        return
    tokens = recipe.speculative.get("num_speculative_tokens")
    highest = drafter.block_size - 1 if drafter.block_size else None
    if tokens is None or tokens < 1 or (highest is not None and tokens > highest):
        yield f"num_speculative_tokens is {tokens}", f"1 to {highest}" if highest else "1 or more"


@rule("prefix-caching")
def _prefix_caching(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None or support.prefix_caching == "safe":
        return
    if recipe.args.get("enable_prefix_caching") is not False:
        yield (
            f"prefix caching is on with the drafter on image {recipe.choice.image_tag}",
            "enable_prefix_caching: false (vLLM turns it on when the flag is left out)",
        )


@rule("kv-dtype-drafter")
def _kv_dtype_drafter(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    drafter = recipe.model.drafter
    if recipe.speculative is None or drafter is None or drafter.causal:
        return
    allowed = recipe.line.kv_cache_dtypes_with_drafter
    for where, value in (
        ("kv_cache_dtype", recipe.args.get("kv_cache_dtype", "auto")),
        ("the drafter's kv_cache_dtype", recipe.speculative.get("kv_cache_dtype", "auto")),
    ):
        if value not in allowed:
            yield f"{where} is {value} with the {drafter.method} drafter", f"one of {', '.join(allowed)}"


@rule("drafter-concurrency")
def _drafter_concurrency(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    support = recipe.line.drafter
    if recipe.speculative is None or support is None:
        return
    sequences = recipe.number("max_num_seqs")
    limit = support.concurrency_limit or recipe.hardware.limits.drafter_concurrency
    if sequences is None:
        yield "max_num_seqs is not set with a drafter (vLLM takes 256)", f"at most {limit}"
    elif sequences > limit:
        note = f" ({support.concurrency_note})" if support.concurrency_note else ""
        yield f"max_num_seqs is {sequences} on image {recipe.choice.image_tag}{note}", f"at most {limit}"

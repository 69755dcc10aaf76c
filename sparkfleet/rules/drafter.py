"""Rules about speculative decoding: the drafter, its backend, its cache and the load that it bears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkfleet.catalog import Drafter, DrafterSupport
from sparkfleet.rules.book import Deployment, Problem

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe

METHOD_HINTS = ("dflash", "eagle3", "dspark")


def speculation(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Whether there is a drafter where one is asked for, and whether what is said to it can work."""
    choice, drafter, support, speculative = recipe.choice, recipe.model.drafter, recipe.line.drafter, recipe.speculative
    if recipe.profile.speculative and drafter and support is None:
        found = f"profile {choice.profile} uses the drafter, and image {choice.image_tag} cannot run it"
        yield "drafter-unsupported", found, "an image with a drafter, or a profile without"
    if recipe.profile.speculative and drafter is None:
        yield "drafter-absent", f"model {choice.model} has no drafter", ""
    if speculative is not None and drafter is not None and support is not None:
        yield from _on_image(recipe, support, speculative)
        yield from _pair(recipe, drafter)
        yield from _config(recipe, drafter, support, speculative)
        yield from _cache(recipe, drafter, support, speculative)


def _on_image(recipe: Recipe, support: DrafterSupport, speculative: dict[str, Any]) -> Iterator[Problem]:
    backend, tag = speculative.get("attention_backend"), recipe.choice.image_tag
    if backend != support.backend:
        reason = support.refused_backends.get(str(backend), "not the one that this image runs")
        found = f"the drafter's attention backend is {backend} on image {tag}: {reason}"
        yield "drafter-backend", found, support.backend or "not set"
    if not support.sliding_window:
        yield "drafter-window", f"image {tag} runs the drafter without its sliding window", ""


def _pair(recipe: Recipe, drafter: Drafter) -> Iterator[Problem]:
    target = recipe.model.artefact
    for name, ours, theirs in (
        ("hidden size", drafter.hidden_size, target.hidden_size),
        ("vocabulary", drafter.vocab_size, target.vocab_size),
        ("number of target layers", drafter.num_target_layers, target.num_hidden_layers),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            yield "drafter-pair", f"{name} of the drafter is {ours}, of the target {theirs}", "equal"
    highest, layers = max(drafter.target_layer_ids, default=0), target.num_hidden_layers
    if layers is not None and highest >= layers:
        yield "drafter-pair", f"the drafter reads layer {highest} of a target with {layers} layers", "a lower one"


def _config(
    recipe: Recipe, drafter: Drafter, support: DrafterSupport, speculative: dict[str, Any]
) -> Iterator[Problem]:
    path, method = str(speculative["model"]), str(speculative["method"])
    for hint in METHOD_HINTS:
        if hint in path.lower() and hint != method:
            found = f"drafter path {path} makes vLLM choose method {hint} instead of {method}"
            yield "drafter-path", found, f"a path without '{hint}'"
    methods, fields = (sorted(known) for known in (recipe.contract.spec_methods, recipe.contract.spec_fields))
    if method not in methods:
        yield "speculative-method", f"speculative method {method}", f"one of {', '.join(methods)}"
    elif method != drafter.method:
        yield "speculative-method", f"speculative method {method} with drafter {drafter.repo}", drafter.method
    for key in speculative:
        if key not in fields:
            yield "speculative-field", f"speculative config has '{key}'", f"one of {', '.join(fields)}"
    if "kv_cache_dtype" in speculative and not support.own_kv_cache_dtype:
        found = f"the drafter has a kv_cache_dtype of its own on image {recipe.choice.image_tag}"
        yield "speculative-field", found, "vLLM 0.26 or newer"
    tokens, highest = speculative.get("num_speculative_tokens"), drafter.block_size - 1 if drafter.block_size else None
    if tokens is None or tokens < 1 or (highest is not None and tokens > highest):
        found = f"num_speculative_tokens is {tokens}"
        yield "speculative-tokens", found, f"1 to {highest}" if highest else "1 or more"


def _cache(recipe: Recipe, drafter: Drafter, support: DrafterSupport, speculative: dict[str, Any]) -> Iterator[Problem]:
    args, tag = recipe.args, recipe.choice.image_tag
    if support.prefix_caching != "safe" and args.get("enable_prefix_caching") is not False:
        expected = "enable_prefix_caching: false (vLLM turns it on when the flag is left out)"
        yield "prefix-caching", f"prefix caching is on with the drafter on image {tag}", expected
    allowed = recipe.line.kv_cache_dtypes_with_drafter
    for where, values in (("kv_cache_dtype", args), ("the drafter's kv_cache_dtype", speculative)):
        value = values.get("kv_cache_dtype", "auto")
        if not drafter.causal and value not in allowed:
            found = f"{where} is {value} with the {drafter.method} drafter"
            yield "kv-dtype-drafter", found, f"one of {', '.join(allowed)}"
    sequences = recipe.number("max_num_seqs")
    limit = support.concurrency_limit or recipe.hardware.limits.drafter_concurrency
    if sequences is None:
        yield "drafter-concurrency", "max_num_seqs is not set with a drafter (vLLM takes 256)", f"at most {limit}"
    elif sequences > limit:
        note = f" ({support.concurrency_note})" if support.concurrency_note else ""
        yield "drafter-concurrency", f"max_num_seqs is {sequences} on image {tag}{note}", f"at most {limit}"

"""Rules about speculative decoding: the drafter, its backend, its cache and the load that it bears."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkfleet.catalog.catalog import Drafter
from sparkfleet.catalog.rows import DrafterSupport
from sparkfleet.release.rules.book import Deployment, Problem
from sparkfleet.release.speculation import SCHEDULE, Speculation, backend, is_own_heads, own_method, schedule_problem

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe

METHOD_HINTS = ("dflash", "eagle3", "dspark")
_POSITIONS = re.compile(r"rope|max_position_embeddings")
# What every backend that runs such a drafter takes, where the line names no more.
BF16 = ("auto", "bfloat16")


def speculation(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Whether there is a drafter where one is asked for, and whether what is said to it can work."""
    choice, asked = recipe.choice, recipe.profile.speculative
    drafter, named = recipe.model.chosen_drafter(recipe.profile.drafter), recipe.profile.drafter
    found = recipe.speculation
    if found is not None and recipe.speculative is not None:
        yield from _method(recipe, found, recipe.speculative)
        yield from _config(recipe, found, recipe.speculative)
        yield from _cache(recipe, found, recipe.speculative)
        return
    if asked and drafter is not None:
        said = f"profile {choice.profile} uses the drafter, and image {choice.image_tag} cannot run it"
        yield "drafter-unsupported", said, "an image with a drafter, or a profile without"
    elif asked and own_method(recipe.profile.speculative_args) is None:
        which = f" '{named}'" if named else ""
        known = ", ".join(recipe.model.other_drafters) if named else ""
        yield "drafter-absent", f"model {choice.model} has no drafter{which}", known and f"one of {known}"


def _method(recipe: Recipe, found: Speculation, speculative: dict[str, Any]) -> Iterator[Problem]:
    """What the line says of the method: its backend, its window, and whether it was seen to run at all."""
    support, tag, method = found.support, recipe.choice.image_tag, str(speculative.get("method"))
    if not found.known:
        yield (
            "drafter-unproven",
            f"method {method} was never seen to work on image {tag}",
            "a method that the line names",
        )
    if is_own_heads(method) and found.drafter is None and not recipe.model.mtp_layers:
        if recipe.model.mtp_layers == 0:
            said = f"method {method} drafts with layers of the target, and model {recipe.choice.model} has none"
            yield "drafter-heads", said, "a model with its own heads, or a drafter of its own"
        else:
            said = f"method {method}: whether {recipe.choice.model} has heads of its own is not known"
            yield "drafter-unproven", said, "a model whose row names its mtp_layers"
    chosen, wanted = speculative.get("attention_backend"), backend(found.drafter, support, recipe.image.line)
    expected = " or ".join(dict.fromkeys([wanted or "not set", *support.works]))
    # Also where the drafter itself needs it: then the two do not go together.
    if refused := support.refused_backends.get(str(chosen).lower()):
        yield "drafter-backend", f"the drafter's attention backend is {chosen} on image {tag}: {refused}", expected
    elif chosen != wanted and chosen not in support.works:
        said = f"the drafter's attention backend {chosen} was never seen to work on image {tag}"
        yield "drafter-backend-unproven", said, expected
    if found.drafter is not None and not support.sliding_window:
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


def _config(recipe: Recipe, found: Speculation, speculative: dict[str, Any]) -> Iterator[Problem]:
    drafter, method = found.drafter, str(speculative.get("method"))
    methods, fields = (sorted(known) for known in (recipe.contract.spec_methods, recipe.contract.spec_fields))
    if drafter is not None:
        yield from _pair(recipe, drafter)
        path = str(speculative.get("model"))
        for hint in METHOD_HINTS:
            if hint in path.lower() and hint != method:
                said = f"drafter path {path} makes vLLM choose method {hint} instead of {method}"
                yield "drafter-path", said, f"a path without '{hint}'"
    if method not in methods:
        yield "speculative-method", f"speculative method {method}", f"one of {', '.join(methods)}"
    elif drafter is not None and method != drafter.method:
        yield "speculative-method", f"speculative method {method} with drafter {drafter.repo}", drafter.method
    for key in speculative:
        if key not in fields:
            yield "speculative-field", f"speculative config has '{key}'", f"one of {', '.join(fields)}"
    if "kv_cache_dtype" in speculative and not found.support.own_kv_cache_dtype:
        said = f"the drafter has a kv_cache_dtype of its own on image {recipe.choice.image_tag}"
        yield "speculative-field", said, "vLLM 0.26 or newer"
    yield from _lengths(speculative, drafter)


def _lengths(speculative: dict[str, Any], drafter: Drafter | None) -> Iterator[Problem]:
    highest = drafter.block_size - 1 if drafter and drafter.block_size else None
    tokens, schedule = speculative.get("num_speculative_tokens"), speculative.get(SCHEDULE)
    if not isinstance(tokens, int) or tokens < 1 or (highest is not None and tokens > highest):
        said = f"num_speculative_tokens is {tokens}"
        yield "speculative-tokens", said, f"1 to {highest}" if highest else "1 or more"
    if schedule is not None and (problem := schedule_problem(schedule)):
        yield "speculative-schedule", f"{SCHEDULE} {problem}", "[[1, 8, 10], [9, 64, 3]], for example"


def _cache(recipe: Recipe, found: Speculation, speculative: dict[str, Any]) -> Iterator[Problem]:
    args, tag, support = recipe.args, recipe.choice.image_tag, found.support
    if found.drafter is not None and args.get("enable_prefix_caching") is not False:
        expected = "enable_prefix_caching: false (vLLM turns it on when the flag is left out)"
        said = f"prefix caching is on with the drafter on image {tag}"
        if support.prefix_caching == "unsafe":
            yield "prefix-caching", said, expected
        elif support.prefix_caching == "doubtful":
            yield "prefix-caching-doubtful", said, expected
    if found.drafter is not None and not found.drafter.causal:
        yield from _not_causal(recipe, found.drafter, support, speculative)
    sequences = recipe.number("max_num_seqs")
    limit = support.concurrency_limit or recipe.hardware.limits.drafter_concurrency
    if sequences is None:
        yield "drafter-concurrency", "max_num_seqs is not set with a drafter (vLLM takes 256)", f"at most {limit}"
    elif sequences > limit:
        note = f" ({support.concurrency_note})" if support.concurrency_note else ""
        yield "drafter-concurrency", f"max_num_seqs is {sequences} on image {tag}{note}", f"at most {limit}"
    if "max_num_batched_tokens" not in args:
        yield "drafter-batch", "max_num_batched_tokens is not set with a drafter", "a number, 8192 for example"

    bound, tokens = recipe.hardware.limits.long_draft, speculative.get("num_speculative_tokens")
    busy = bound is not None and sequences is not None and sequences > bound[0]
    if bound and busy and isinstance(tokens, int) and tokens > bound[1] and SCHEDULE not in speculative:
        said = f"num_speculative_tokens is {tokens} with max_num_seqs {sequences}"
        yield "long-drafts", said, f"at most {bound[1]}, or {SCHEDULE} with shorter ones under load"
    if changed := sorted(key for key in _paths(recipe.within("hf_overrides")) if _POSITIONS.search(key)):
        said = f"hf_overrides changes {', '.join(changed)}, which the drafter does not follow"
        yield "drafter-positions", said, "no change of positions with a drafter"


def _paths(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _paths(inner)


def _not_causal(
    recipe: Recipe, drafter: Drafter, support: DrafterSupport, speculative: dict[str, Any]
) -> Iterator[Problem]:
    """The cache of a drafter that is not causal: its own type where the engine keeps one for it, else the target's."""
    own = "kv_cache_dtype" in speculative
    where, values = ("the drafter's kv_cache_dtype", speculative) if own else ("kv_cache_dtype", recipe.args)
    value, chosen = values.get("kv_cache_dtype", "auto"), speculative.get("attention_backend")
    allowed = support.kv_cache_dtypes.get(str(chosen).lower(), BF16)
    if value not in allowed:
        found = f"{where} is {value} with the {drafter.method} drafter on {chosen or 'the default backend'}"
        others = [name for name, kinds in support.kv_cache_dtypes.items() if value in kinds and name != chosen]
        instead = f"; or the drafter on {' or '.join(others)}" if others else ""
        yield "kv-dtype-drafter", found, f"one of {', '.join(allowed)}{instead}"

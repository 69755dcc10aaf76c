"""Rules about the machine and its operation: memory, batches, GPUs, time limits and who can reach the port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.rules.book import Deployment, Problem, rule

if TYPE_CHECKING:
    from sparkfleet.recipe import Recipe


@rule("memory-utilization-missing")
def _memory_missing(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    argument = recipe.engine.memory_argument
    if recipe.memory_utilization is None:
        also = " although kv_cache_memory_bytes is set" if "kv_cache_memory_bytes" in recipe.args else ""
        found = recipe.args.get(argument, "not set")
        yield f"{argument} is {found}{also}", f"at most {recipe.hardware.limits.memory_utilization_advised:g}"


@rule("memory-utilization-limit")
def _memory_limit(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.memory_utilization
    limit = recipe.hardware.limits.memory_utilization
    if value is not None and not 0 < value <= limit:
        yield f"{recipe.engine.memory_argument} is {value:g}", f"over 0 and at most {limit:g}"


@rule("memory-utilization-high")
def _memory_high(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.memory_utilization
    limits = recipe.hardware.limits
    if value is not None and limits.memory_utilization_advised < value <= limits.memory_utilization:
        yield f"{recipe.engine.memory_argument} is {value:g}", f"at most {limits.memory_utilization_advised:g}"


@rule("kv-cache-bytes")
def _kv_cache_bytes(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.hardware.unified_memory and "kv_cache_memory_bytes" in recipe.args:
        yield f"kv_cache_memory_bytes is {recipe.args['kv_cache_memory_bytes']}", "not set"


@rule("batched-tokens")
def _batched_tokens(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    value = recipe.number("max_num_batched_tokens")
    limit = recipe.hardware.limits.batched_tokens
    if limit is not None and value is not None and value > limit:
        yield f"max_num_batched_tokens is {value}", f"at most {limit}"


@rule("batch-order")
def _batch_order(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    tokens, sequences = recipe.number("max_num_batched_tokens"), recipe.number("max_num_seqs")
    if sequences is not None and sequences < 1:
        yield f"max_num_seqs is {sequences}", "1 or more"
    if tokens is not None and sequences is not None and tokens < sequences:
        yield f"max_num_batched_tokens {tokens} is under max_num_seqs {sequences}", "at least as many"


@rule("tensor-parallel")
def _tensor_parallel(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    gpus = recipe.hardware.limits.gpus
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "tp_size", "pp_size"):
        value = recipe.number(key)
        if value is not None and not 1 <= value <= gpus:
            yield f"{key} is {value} on {gpus} GPU", f"at most {gpus}"


@rule("stop-order")
def _stop_order(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    timing = recipe.profile.timing
    inner = recipe.number("shutdown_timeout") or 0
    margin = timing.stop_margin_s
    if inner < 0 or inner + margin > timing.docker_stop_s or timing.docker_stop_s + margin > timing.unit_stop_s:
        yield (
            f"stop timeouts: engine {inner} s, docker {timing.docker_stop_s} s, unit {timing.unit_stop_s} s",
            f"each at least {margin} s more than the one before",
        )


@rule("start-deadline")
def _start_deadline(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    deadline, needed = recipe.profile.timing.load_deadline_s, recipe.hardware.limits.cold_start_s
    if needed is not None and deadline < needed:
        yield f"load_deadline_s is {deadline}", f"{needed} or more"


@rule("ready-timeout")
def _ready_timeout(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    if recipe.engine.ready_timeout is None:
        return
    deadline = recipe.profile.timing.load_deadline_s
    variable, default = recipe.engine.ready_timeout
    text = recipe.env.get(variable, str(default))
    if not text.isdigit() or int(text) < deadline:
        yield (
            f"{variable} is {text}, so the engine gives up before load_deadline_s ({deadline} s)",
            f"{deadline} or more",
        )


@rule("exposure")
def _exposure(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    host = recipe.args.get("host")
    local = host in ("127.0.0.1", "localhost", "::1")
    if not local and not deployment.api_key_file and not deployment.allow_unauthenticated:
        kind = "an uncensored model" if recipe.model.uncensored else "a model"
        yield (
            f"{kind} would listen on {host or 'all addresses'} without an API key",
            "a key, or a written decision",
        )


@rule("key-unread")
def _key_unread(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    if deployment.api_key_file and recipe.engine.key_variable is None:
        yield f"api_key_file is set, and {recipe.engine.kind} reads no key from its environment", "a proxy with a key"

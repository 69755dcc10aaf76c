"""Rules about the machine and its operation: memory, batches, GPUs, time limits and who can reach the port."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sparkfleet.release.capacity import DEFAULT_BATCH, GIB, capacity
from sparkfleet.release.rules.book import Deployment, Problem

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe


def memory(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Shares of the memory, and the batches and parallel parts that it bears."""
    args, limits, argument = recipe.args, recipe.hardware.limits, recipe.engine.memory_argument
    share, most, advised = recipe.memory_utilization, limits.memory_utilization, limits.memory_utilization_advised
    ceiling = recipe.line.memory_ceiling if recipe.hardware.unified_memory else None
    if share is None:
        also = " although kv_cache_memory_bytes is set" if "kv_cache_memory_bytes" in args else ""
        found = f"{argument} is {args.get(argument, 'not set')}{also}"
        yield "memory-utilization-missing", found, f"at most {advised:g}"
    elif not 0 < share <= most:
        yield "memory-utilization-limit", f"{argument} is {share:g}", f"over 0 and at most {most:g}"
    elif ceiling is not None and share > ceiling:
        found = f"{argument} is {share:g} on image {recipe.choice.image_tag}, whose maker's hard ceiling is {ceiling:g}"
        yield "memory-utilization-ceiling", found, f"at most {min(ceiling, advised):g}"
    elif share > advised:
        yield "memory-utilization-high", f"{argument} is {share:g}", f"at most {advised:g}"
    if recipe.hardware.unified_memory and "kv_cache_memory_bytes" in args:
        yield "kv-cache-bytes", f"kv_cache_memory_bytes is {args['kv_cache_memory_bytes']}", "not set"
    tokens, sequences = recipe.number("max_num_batched_tokens"), recipe.number("max_num_seqs")
    bounds = [bound for bound in (limits.batched_tokens, recipe.line.batched_tokens) if bound is not None]
    if limits.batched_tokens is not None and tokens is not None and tokens > min(bounds):
        found = f"max_num_batched_tokens is {tokens} on image {recipe.choice.image_tag}"
        yield "batched-tokens", found, f"at most {min(bounds)}"
    if sequences is not None and sequences < 1:
        yield "batch-order", f"max_num_seqs is {sequences}", "1 or more"
    if tokens is not None and sequences is not None and tokens < sequences:
        found = f"max_num_batched_tokens {tokens} is under max_num_seqs {sequences}"
        yield "batch-order", found, "at least as many"
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "tp_size", "pp_size"):
        value = recipe.number(key)
        if value is not None and not 1 <= value <= limits.gpus:
            yield "tensor-parallel", f"{key} is {value} on {limits.gpus} GPU", f"at most {limits.gpus}"


def cache(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    """Whether the KV cache holds one request of full length, as far as that can be told."""
    if recipe.engine.kind != "vllm" or recipe.profile.engine != "vllm":
        return
    found = capacity(recipe)
    if isinstance(found, str):
        yield "kv-capacity-unknown", f"KV cache capacity is not known: {found}", ""
        return
    argument = recipe.engine.context_argument
    needs = f"one request of {argument} {found.max_model_len:,} needs {found.request_bytes / GIB:.1f} GiB"
    holds = f"{needs} of KV cache, and {found.cache_bytes / GIB:.1f} GiB is left for it"
    fits = f"{argument} of at most {found.largest:,}" if found.largest else "a smaller model, or more memory for it"
    if found.request_bytes > found.cache_bytes * (1 + found.error):
        batch = recipe.number("max_num_batched_tokens")
        smaller = ", or fewer max_num_batched_tokens" if batch and batch > DEFAULT_BATCH else ""
        yield "kv-capacity", f"{holds} (KV cache tokens: {found.tokens:,})", f"{fits}{smaller}"
    elif found.request_bytes > found.cache_bytes * (1 - found.error):
        yield "kv-capacity-tight", f"{holds}, which may be off by {found.error:.0%}", fits


def time_limits(recipe: Recipe, _: Deployment) -> Iterator[Problem]:
    timing, inner = recipe.timing, recipe.number("shutdown_timeout") or 0
    margin, deadline, cold = timing.stop_margin_s, timing.load_deadline_s, recipe.hardware.limits.cold_start_s
    if inner < 0 or inner + margin > timing.docker_stop_s or timing.docker_stop_s + margin > timing.unit_stop_s:
        found = f"stop timeouts: engine {inner} s, docker {timing.docker_stop_s} s, unit {timing.unit_stop_s} s"
        yield "stop-order", found, f"each at least {margin} s more than the one before"
    if cold is not None and deadline < cold:
        yield "start-deadline", f"load_deadline_s is {deadline}", f"{cold} or more"
    if recipe.engine.ready_timeout is not None:
        variable, default = recipe.engine.ready_timeout
        text = recipe.env.get(variable, str(default))
        if not text.isdigit() or int(text) < deadline:
            found = f"{variable} is {text}, so the engine gives up before load_deadline_s ({deadline} s)"
            yield "ready-timeout", found, f"{deadline} or more"


def reach(recipe: Recipe, deployment: Deployment) -> Iterator[Problem]:
    host, key = recipe.args.get("host"), deployment.api_key_file
    if host not in ("127.0.0.1", "localhost", "::1") and not key and not deployment.allow_unauthenticated:
        kind = "an uncensored model" if recipe.model.uncensored else "a model"
        found = f"{kind} would listen on {host or 'all addresses'} without an API key"
        yield "exposure", found, "a key, or a written decision"
    if key and recipe.engine.key_variable is None:
        found = f"api_key_file is set, and {recipe.engine.kind} reads no key from its environment"
        yield "key-unread", found, "a proxy with a key"

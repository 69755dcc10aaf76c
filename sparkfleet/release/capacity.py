"""Will it fit: the KV cache beside weights and engine, in tokens and in requests of full length. Pure.

vLLM's own arithmetic (v1/core/kv_cache_utils.py and kv_cache_interface.py of 0.22.1 and 0.26.0): layers with one shape
form groups of one size, all groups share pages of one size, and a request holds pages for its whole length in a full
layer, for its window and the tokens in flight in a sliding one. An H200 with 0.26.0 reported what this computes
(791,907 tokens from 77.11 GiB with the drafter, 838,359 from 73.75 GiB without, at 184,320 tokens a request).
What the engine takes for itself is fitted to published figures (catalog/hardware.yaml, engine_memory).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkfleet.catalog.rows import KvLayers
from sparkfleet.release.speculation import OWN_HEADS

if TYPE_CHECKING:
    from sparkfleet.release.recipe import Recipe

GIB = 2**30
BLOCK = 16
# vLLM's own batch for a server on a GPU of this size, where the recipe sets none (engine/arg_utils.py).
DEFAULT_BATCH = 8192


@dataclass(frozen=True)
class Shape:
    """One shape of cache: bytes a token in one layer, heads and head size, and the window of a sliding layer.

    Layers with as many bytes and other heads are another kind to vLLM, and form groups of their own.
    """

    token_bytes: int
    heads: tuple[int, int]
    window: int | None


@dataclass(frozen=True)
class Capacity:
    """What the cache holds; `largest` is the longest single request, `error` how far the memory may be off."""

    cache_bytes: int
    request_bytes: int
    max_model_len: int
    largest: int
    error: float
    not_counted: str = ""

    @property
    def concurrency(self) -> float:
        return self.cache_bytes / self.request_bytes

    @property
    def tokens(self) -> int:
        return int(self.concurrency * self.max_model_len)

    def words(self) -> str:
        """Say it for the plan."""
        size = f"{self.tokens:,} tokens, {self.concurrency:.2f} × max_model_len {self.max_model_len:,}"
        off = f"estimated from {self.cache_bytes / GIB:.1f} GiB, may be off by {self.error:.0%}"
        return f"KV cache capacity: {size} ({off}{self.not_counted and f'; {self.not_counted}'})"


def capacity(recipe: Recipe, total_bytes: int | None = None) -> Capacity | str:
    """Return what the recipe's KV cache holds on a machine with `total_bytes`, or what is not known for it."""
    memory, model = recipe.hardware.engine_memory, recipe.model
    total = total_bytes or (memory.total_bytes if memory else None)
    share, weights = recipe.memory_utilization, model.loaded_bytes or model.disk_bytes
    layers = _layers(recipe)
    if recipe.engine.kind != "vllm":
        return f"the cache of {recipe.engine.kind} is not modelled"
    if isinstance(layers, str):
        return layers
    if memory is None or total is None:
        return f"the memory of {recipe.choice.hardware} is not one figure"
    if share is None or weights is None:
        return f"{'the share of the memory' if share is None else 'the size of the weights'} is not known"
    drafter = recipe.drafter
    batch = _batch(recipe)
    taken = weights + (drafter.disk_bytes or 0 if drafter else 0)
    taken += memory.fixed_bytes + memory.bytes_per_batched_token * batch
    fixed = recipe.number("kv_cache_memory_bytes")
    cache = int(fixed) if fixed is not None else max(0, int(total * share) - taken)
    in_flight = batch * (1 if recipe.args.get("async_scheduling") is False else recipe.line.kv_batches_in_flight)
    block = int(recipe.number("block_size") or BLOCK)

    def request(length: int) -> int:
        return request_bytes(layers, length, in_flight, block)

    uncounted = drafter is not None and not drafter.kv_layers and drafter.method != OWN_HEADS
    return Capacity(
        cache_bytes=cache,
        request_bytes=request(recipe.max_model_len),
        max_model_len=recipe.max_model_len,
        largest=_largest(model.max_model_len, cache, request),
        error=0.0 if fixed is not None else memory.error,
        not_counted="the drafter's own layers are not known and not counted" if uncounted else "",
    )


def request_bytes(layers: Iterable[tuple[Shape, int]], length: int, in_flight: int, block: int = BLOCK) -> int:
    """Return the bytes that one request of this length holds at most, with layers counted by shape."""
    counted: Counter[Shape] = Counter()
    for shape, number in layers:
        counted[shape] += number
    page = max(shape.token_bytes for shape in counted) * block
    least, most = min(counted.values()), max(counted.values())
    # vLLM pads the smaller kind when the two are nearly as many, and splits the larger one otherwise.
    group = most if most < least * 1.5 else least
    blocks = 0
    for shape, number in counted.items():
        own = shape.token_bytes * block
        # A smaller page takes more tokens where they divide, and is padded where they do not.
        tokens = block * (page // own) if page % own == 0 else block
        blocks += math.ceil(number / group) * _blocks(shape.window, length, in_flight, tokens)
    return blocks * group * page


def _blocks(window: int | None, length: int, in_flight: int, tokens: int) -> int:
    if window is None:
        return math.ceil(length / tokens)
    # One more, since a window need not begin where a block does.
    return math.ceil(min(window - 1 + in_flight, length) / tokens) + 1


def _largest(most: int, cache: int, request: Callable[[int], int]) -> int:
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if request(middle) <= cache else (low, middle - 1)
    return low


def _batch(recipe: Recipe) -> int:
    return int(recipe.number("max_num_batched_tokens") or DEFAULT_BATCH)


def _layers(recipe: Recipe) -> list[tuple[Shape, int]] | str:
    """Return the cached layers of target and drafter by shape, or what is not known of them."""
    if not recipe.model.kv_layers:
        return f"the layers of {recipe.choice.model} are not in the catalogue"
    target = str(recipe.args.get("kv_cache_dtype", "auto"))
    found = [(row, target, row.window) for row in recipe.model.kv_layers]
    if recipe.drafter is not None and recipe.support is not None:
        own = str((recipe.speculative or {}).get("kv_cache_dtype", target))
        slides = recipe.support.sliding_window
        found += [(row, own, row.window if slides else None) for row in recipe.drafter.kv_layers]
    layers = []
    for row, dtype, window in found:
        size = _token_bytes(row, dtype)
        if size is None:
            return f"the size of kv_cache_dtype {dtype} is not known"
        layers.append((Shape(size, (row.kv_heads, row.head_size), window), row.layers))
    return layers


def _token_bytes(row: KvLayers, dtype: str) -> int | None:
    """Return the bytes of one token's key and value in one layer."""
    head = row.head_size
    vector: dict[str, float] = {"auto": 2 * head, "bfloat16": 2 * head, "float16": 2 * head}
    vector |= dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), head)
    # A scale of four bytes beside each vector; NVFP4 has one byte for each sixteen values.
    vector |= {"fp8_per_token_head": head + 4, "int8_per_token_head": head + 4, "int4_per_token_head": head / 2 + 4}
    vector["nvfp4"] = head / 2 + head / 16
    size = vector.get(dtype)
    return None if size is None else int(2 * row.kv_heads * size)

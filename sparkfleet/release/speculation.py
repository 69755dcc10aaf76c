"""How a recipe drafts: with the model's drafter, with the target's own heads, or by looking words up in the text. Pure.

The attention backend of a drafter belongs to model, method and image line together; `null` leaves it to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sparkfleet.catalog.catalog import Drafter, Line, Model, Profile
from sparkfleet.catalog.rows import DrafterSupport

# Methods without a model of their own, and the one that drafts with layers of the target (vLLM's own names for those
# layers, such as qwen3_5_mtp, end alike).
LOOKUP = ("ngram", "ngram_gpu", "suffix")
OWN_HEADS = "mtp"
SCHEDULE = "num_speculative_tokens_per_batch_size"
# Where a line has no row for a method that is causal: upstream's own path, which needs nothing of the image.
UPSTREAM = DrafterSupport(backend=None, prefix_caching="safe")


@dataclass(frozen=True)
class Speculation:
    """A speculative config, what the line needs of its method, and the drafter that is staged for it, if any."""

    config: dict[str, Any]
    support: DrafterSupport
    drafter: Drafter | None
    # Whether the line's row names the method.
    known: bool


def own_method(args: Mapping[str, Any]) -> str | None:
    """Return the method that these arguments choose without a drafter of the catalogue, if they choose one."""
    method = args.get("method")
    return str(method) if method is not None and (method in LOOKUP or is_own_heads(str(method))) else None


def is_own_heads(method: str) -> bool:
    return method == OWN_HEADS or method.endswith(f"_{OWN_HEADS}")


def speculation(model: Model, profile: Profile, line: Line, line_id: str) -> Speculation | None:
    """Return what the recipe speculates with; None where it does not, or where the line cannot run the drafter."""
    if not profile.speculative or line.engine != "vllm":
        return None
    args, drafter = profile.speculative_args, model.chosen_drafter(profile.drafter)
    method = own_method(args)
    # A drafter's own method, written out, is no choice of another.
    if method is not None and (drafter is None or method != drafter.method):
        known = line.drafters.get(OWN_HEADS if is_own_heads(method) else method)
        return Speculation(_set(args), known or UPSTREAM, None, known is not None)
    if drafter is None:
        return None
    known = line.drafters.get(drafter.method)
    if known is None and not drafter.causal:
        return None
    support = known or UPSTREAM
    config = {
        "method": drafter.method,
        "model": drafter.container_path,
        "num_speculative_tokens": drafter.default_tokens,
        "attention_backend": backend(drafter, support, line_id),
        **args,
    }
    return Speculation(_set(config), support, drafter, known is not None)


def backend(drafter: Drafter | None, support: DrafterSupport, line_id: str) -> str | None:
    """Return the attention backend of this drafter on this line: its own need goes before the line's."""
    own = drafter.attention_backends if drafter else {}
    return own.get(line_id, own.get("*", support.backend))


def _set(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}


def schedule_problem(value: object) -> str | None:
    """Say what is wrong with draft lengths by batch size, as vLLM judges them, or None.

    Entries are [first batch size, last, tokens] (vLLM 0.27.1, v1/spec_decode/dynamic/utils.py).
    """
    if not isinstance(value, list) or not value:
        return "takes a list of [first batch size, last batch size, tokens]"
    for entry in value:
        whole = isinstance(entry, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in entry)
        if not whole or len(entry) != 3:
            return f"has {entry!r}, which is no [first batch size, last batch size, tokens]"
        first, last, tokens = entry
        if not 1 <= first <= last or tokens < 0:
            return f"has {entry!r}: batch sizes start at 1 and rise, and no length is negative"
    ordered = sorted(value)
    if ordered[0][0] != 1:
        return f"starts at batch size {ordered[0][0]} instead of 1"
    for (_, last, _), (first, _, _) in pairwise(ordered):
        if first <= last:
            return f"has two lengths for batch size {first}"
    return None


def single_stream_tokens(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens are drafted for one request alone, which is how the gates ask."""
    tokens, schedule = config.get("num_speculative_tokens"), config.get(SCHEDULE)
    if not isinstance(tokens, int):
        return None
    if schedule is None or schedule_problem(schedule):
        return tokens
    return min(tokens, int(min(schedule)[2]))


def expected_length(length: float, made_with: int, tokens: int) -> float:
    """Return the mean acceptance length that a drafter as good as this one has when it drafts `tokens` instead.

    With one acceptance p at every position the length is 1 + p + … + pⁿ; p is found by halving. More drafted tokens
    never lower the length, so a longer draft keeps the floor.
    """
    if tokens >= made_with:
        return length
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _length(middle, made_with) < length else (low, middle)
    return round(_length(low, tokens), 2)


def _length(acceptance: float, tokens: int) -> float:
    return sum(acceptance**position for position in range(tokens + 1))

"""What other requests an engine served while a gate measured it, from the engine's own counters.

Clients may reach an engine from its first `/health` 200 on. What is timed or counted over the whole engine says as much
of them as of the release.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparknode.base.parse import Sample
from sparknode.base.system import System
from sparknode.engine.client import Chat, Engine, in_flight, total

# The engine's own figures are a step behind its answers, and a step of a drafter makes this many tokens at most.
LAG_S = 0.25
SLACK_TOKENS, SLACK_SHARE = 32.0, 0.05
CALM_LOOK_S = 0.5


@dataclass(frozen=True)
class Load:
    """The engine's work at one moment: requests in it, and what it has read and made since its start."""

    requests: float | None
    prompted: float | None
    generated: float | None


def load_of(samples: Iterable[Sample]) -> Load:
    samples = list(samples)
    return Load(
        in_flight(samples),
        total(samples, "vllm:prompt_tokens_total"),
        total(samples, "vllm:generation_tokens_total"),
    )


def read(engine: Engine, system: System) -> Load:
    """The load when nothing of ours runs; a request is looked at twice, as it may be our last one."""
    load = load_of(engine.metrics())
    if load.requests:
        system.sleep(LAG_S)
        load = load_of(engine.metrics())
    return load


def others(before: Load, after: Load, own: Iterable[Chat]) -> str | None:
    """What was served beside our own requests between two readings, in words; None where nothing shows."""
    own = list(own)
    requests = max(before.requests or 0.0, after.requests or 0.0)
    if requests:
        return f"{requests:.0f} other requests ran or waited"
    made = _excess(before.generated, after.generated, sum(chat.completion_tokens for chat in own))
    asked = _excess(before.prompted, after.prompted, sum(chat.prompt_tokens for chat in own))
    if made or asked:
        return f"other requests came, of {asked:.0f} tokens and with {made:.0f} in answer"
    return None


def made_for_others(before: Load, after: Load, own_tokens: int) -> bool:
    """Did the engine make more tokens than our own requests can have asked for?"""
    return _excess(before.generated, after.generated, own_tokens) > 0


def _excess(before: float | None, after: float | None, own: int) -> float:
    """By how much a counter moved beyond our own share; 0 within its lag, and where it was not counted."""
    if before is None or after is None:
        return 0.0
    extra = after - before - own
    return extra if extra > max(SLACK_TOKENS, SLACK_SHARE * own) else 0.0


def calm(engine: Engine, system: System, longest_s: float) -> bool:
    """Wait for a moment without requests, at most so long."""
    until = system.monotonic() + longest_s
    while in_flight(engine.metrics()):
        if system.monotonic() >= until:
            return False
        system.sleep(CALM_LOOK_S)
    return True

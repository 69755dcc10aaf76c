"""Does an engine live? One look held against those before, over plain data.

A false restart is the worst that can come of it, so time counts only while two looks in a row saw the same standstill,
by a clock that no one sets, and at most LOOK_CAP_S from one look to the next: neither a step of the clock, nor a host
that slept or froze, nor a request that came a moment ago makes a hang.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sparknode.state.release import WatchRules

# A look comes each minute, up to 20 s late.
LOOK_CAP_S = 90.0
UNANSWERED = 2


@dataclass(frozen=True)
class Glimpse:
    """What one look saw: whether the API answered at all, and the figures that its core reported last.

    `beat` holds what moves with every step of the scheduler. Token counters alone do not: vLLM counts a step only once
    it has an output, and a long prefill has none until its end (469 steps of one prompt of 30,000 tokens); the share of
    the KV cache in use does (vllm/v1/core/sched/scheduler.py: stats come without outputs too).
    """

    t: float
    answers: bool
    requests: float | None = None
    beat: tuple[float, ...] = ()
    power_w: float | None = None


@dataclass(frozen=True)
class Pulse:
    """What is known after a look, and for how long it has stood so."""

    t: float
    answers: bool = False
    requests: float | None = None
    beat: tuple[float, ...] = ()
    frozen_s: float = 0.0
    silent_s: float = 0.0
    idle_s: float = 0.0
    unanswered: int = 0
    unanswered_s: float = 0.0


def after(before: Pulse | None, seen: Glimpse, ask_after_s: float, ask: Callable[[], bool | None]) -> Pulse:
    """The pulse after a look. An engine that had nothing to do is asked for one token, and again until it answers:
    `ask` gives whether anything moved by that, or None where that can't be told.
    """
    now = Pulse(seen.t, seen.answers, seen.requests, seen.beat)
    if before is None:
        return now
    passed = min(max(0.0, seen.t - before.t), LOOK_CAP_S)
    if not seen.answers:
        # An engine that never answered may be loading.
        known = replace(now, requests=before.requests, beat=before.beat)
        return replace(known, silent_s=before.silent_s + passed if not before.answers else 0.0) if before.beat else now
    if not seen.beat or seen.beat != before.beat or not before.answers:
        return now
    if seen.requests:
        return replace(now, frozen_s=before.frozen_s + passed) if before.requests else now
    now = replace(now, idle_s=before.idle_s + passed, unanswered=before.unanswered)
    now = replace(now, unanswered_s=before.unanswered_s + passed if before.unanswered else 0.0)
    if now.idle_s < ask_after_s and not now.unanswered:
        return now
    moved = ask()
    if moved is False:
        return replace(now, unanswered=now.unanswered + 1)
    return replace(now, idle_s=0.0, unanswered=0, unanswered_s=0.0)


def stalled(pulse: Pulse, power_w: float | None, rules: WatchRules) -> str | None:
    """Why the engine counts as hung, or None.

    Only a GPU that is known to draw too little for its work shortens the wait: kernels that are compiled in the middle
    of a request have held one for 300 s. Of an engine that has nothing to do, power says nothing.
    """
    longest = rules.stalled_s * rules.slow_factor
    wedged = power_w is not None and power_w < rules.wedged_power_w
    if pulse.frozen_s > 0 and pulse.frozen_s >= (rules.stalled_s if wedged else longest):
        watts = f", the GPU draws {power_w:.0f} W" if power_w is not None else ""
        return f"{pulse.requests:.0f} requests run and no token came for {pulse.frozen_s:.0f} s{watts}"
    if pulse.unanswered >= UNANSWERED and pulse.unanswered_s >= longest:
        return f"nothing ran, and {pulse.unanswered} requests for one token had no answer in {pulse.unanswered_s:.0f} s"
    if pulse.silent_s > 0 and pulse.silent_s >= longest:
        return f"the engine answered before and has answered nothing at all for {pulse.silent_s:.0f} s"
    return None

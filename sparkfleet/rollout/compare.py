"""Is the new release worse than the old one? The canary's figures against hosts that still run the old release, and
against the canary's own last verified run. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any, Literal

from sparknode import NOT_JUDGED
from sparknode.state.described import Described
from sparknode.state.release import Release


@dataclass(frozen=True)
class Row:
    """One figure of one canary beside what it is compared with."""

    host: str
    figure: str
    now: float
    before: float | None
    control: float | None
    margin: float | None
    verdict: Literal["ok", "worse", "not judged"]


def compare(
    host: str,
    now: Mapping[str, Any],
    before: Mapping[str, Any],
    controls: Sequence[Mapping[str, Any]],
    margins: Mapping[str, Any],
) -> Iterator[Row]:
    """Yield a row for each of the canary's figures that has something to be compared with.

    `now`, `before` and `controls` are figures by gate as the node's journal holds them. A margin is a share of the
    older figure; without a margin the row is shown and not judged.
    """
    for gate in sorted(now):
        found = compared().get(gate)
        # Measured beside other requests: shown, and compared with nothing.
        crowded = (now[gate] or {}).get("verdict") == NOT_JUDGED
        figure = _number((now[gate] or {}).get("figure"))
        if found is None or figure is None:
            continue
        key, sign = found
        own = figure_of(before, gate)
        others = [value for value in (figure_of(control, gate) for control in controls) if value is not None]
        control = median(others) if others else None
        baselines = [value for value in (own, control) if value is not None and value > 0]
        if not baselines:
            continue
        margin = margins.get(key)
        if margin is None or crowded:
            yield Row(host, gate, figure, own, control, None, "not judged")
            continue
        worse = any(sign * (figure - baseline) > margin * baseline for baseline in baselines)
        yield Row(host, gate, figure, own, control, margin, "worse" if worse else "ok")


@cache
def compared() -> dict[str, tuple[str, int]]:
    """Return the margin of each gate whose figure is compared; the sign says which way is worse."""
    # Here, because only a rollout that moved a canary needs the node's gates.
    from sparknode.gates.table import GATES

    return {gate.id: (gate.margin, 1 if gate.worse == "higher" else -1) for gate in GATES if gate.margin}


def figure_of(figures: Mapping[str, Any], gate: str) -> float | None:
    """Return a gate's figure, or None when it was not measured, or measured while others were served."""
    row = figures.get(gate) or {}
    return None if row.get("verdict") == NOT_JUDGED else _number(row.get("figure"))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def comparable(old: Described | None, new: Release) -> bool:
    """Say whether two releases shall be equally good: the same model under the same profile."""
    return old is not None and (old.model, old.profile) == (new.model, new.profile)


HEADINGS = ("canary", "figure", "now", "before", "others", "allowed", "verdict")


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            row.host,
            row.figure,
            f"{row.now:g}",
            "–" if row.before is None else f"{row.before:g}",
            "–" if row.control is None else f"{row.control:g}",
            "–" if row.margin is None else f"{row.margin:.0%}".replace("%", " %"),
            row.verdict,
        )
        for row in rows
    ]

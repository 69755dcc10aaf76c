"""The report of a rollout as one HTML page that needs nothing else. Pure: the report's document in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sparkfleet import ROOT


def page(document: Mapping[str, Any], comparison: Sequence[tuple[str, ...]]) -> str:
    """Return the page; `comparison` is the canaries' rows as text."""
    loader = FileSystemLoader(ROOT / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    lanes, span_s = timeline({name: host["phases"] for name, host in document["hosts"].items()})
    waves = {name: wave["number"] for wave in document["waves"] for name in wave["hosts"]}
    return environment.get_template("report.html.j2").render(
        doc=document, lanes=lanes, span_s=span_s, wave_of=waves, comparison=comparison
    )


def timeline(phases: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Return each host's phases as bars in percent of the whole span, and the span in seconds."""
    times = {name: [_seconds(phase["t"]) for phase in found] for name, found in phases.items() if len(found) > 1}
    if not times:
        return {}, 0.0
    first = min(found[0] for found in times.values())
    span = max(0.001, max(found[-1] for found in times.values()) - first)
    lanes = {
        name: [
            {
                "state": phase["state"],
                "seconds": end - begin,
                "left": 100 * (begin - first) / span,
                "width": 100 * (end - begin) / span,
            }
            for phase, begin, end in zip(phases[name], found, found[1:], strict=False)
        ]
        for name, found in times.items()
    }
    return lanes, span


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()

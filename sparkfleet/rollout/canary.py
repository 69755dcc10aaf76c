"""The figures of a first wave, or of canaries, beside those of the old release. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkfleet.rollout.compare import Row, comparable, compare
from sparkfleet.rollout.fleet_run import FleetRun, is_canary


def comparison(run: FleetRun, number: int) -> list[Row]:
    """Return a wave's figures beside those before and those of hosts that still serve the old release.

    Going back and restarting are not judged like this: both are done because something is wrong already.
    """
    if run.intent != "deploy":
        return []
    rows: list[Row] = []
    for name in run.waves[number - 1]:
        plan, outcome = run.hosts[name], run.progress.outcomes.get(name)
        if not outcome or not outcome.ok or not (number == 1 or is_canary(plan)):
            continue
        old = run.progress.before[name]
        if not comparable(old.release, plan.release):
            continue
        rows += compare(name, _figures(run, name), old.figures, _controls(run, name), _margins(run, name))
    return rows


def _controls(run: FleetRun, name: str) -> list[Mapping[str, Any]]:
    return [
        node.figures
        for other, node in run.statuses().items()
        if other not in run.progress.outcomes
        and node.serves
        and node.verified not in (None, run.wanted(name))
        and comparable(node.release, run.hosts[name].release)
    ]


def _figures(run: FleetRun, name: str) -> Mapping[str, Any]:
    node = run.status(name)
    proven = node.proof is not None and node.proof.release == run.wanted(name)
    return node.figures if proven else run.progress.outcomes[name].figures


def _margins(run: FleetRun, name: str) -> dict[str, float]:
    """Return what the profile allows. Nothing is judged on the catalogue's own way back: it is taken because the newer
    image is worse, whatever the figures of its best days.
    """
    plan = run.hosts[name]
    old = run.progress.before[name].release
    going_back = old is not None and plan.release.image_tag in plan.settings.catalog().ways_back(old.image_tag)
    if going_back or not run.pace.judge_canary:
        return {}
    margins: dict[str, float] = plan.compiled.recipe.gates.compare.model_dump(exclude_none=True)
    return margins

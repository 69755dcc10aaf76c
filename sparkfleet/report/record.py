"""What a rollout did, as a file and in words; also when it was stopped or interrupted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from sparkfleet import ROOT
from sparkfleet.report.page import page
from sparkfleet.rollout.compare import cells
from sparkfleet.rollout.fleet_run import FleetRun
from sparknode.state.status import Ended

SCHEMA = 1


def path(run: FleetRun) -> Path:
    return ROOT / run.pace.runs_dir / f"{run.started:%Y%m%dT%H%M%SZ}-{run.rollout}.json"


def write(run: FleetRun) -> Path:
    """Write the report as it stands now, as JSON and as a page; return where the JSON is."""
    found, target = document(run), path(run)
    _put(target.with_suffix(".html"), page(found, cells(run.progress.comparison)))
    return save(target, found)


def save(target: Path, content: dict[str, Any]) -> Path:
    """Write a document; return where it is."""
    _put(target, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return target


def _put(target: Path, text: str) -> None:
    """Write a file whole or not at all.

    One that cannot be written is said, and stops nothing: the nodes' journals hold what matters.
    """
    new = target.with_name(f"{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(target)
    except OSError as error:
        click.echo(f"the report cannot be written: {error}; next: set runs_dir to a folder that can be", err=True)


def document(run: FleetRun) -> dict[str, Any]:
    """Return the report: waves, hosts and comparison, and how it ended so far."""
    progress = run.progress
    return {
        "schema": SCHEMA,
        "rollout": run.rollout,
        "intent": run.intent,
        "operator": run.operator,
        "started": _time(run.started),
        "written": _time(datetime.now(UTC)),
        "outcome": outcome(run),
        "reason": progress.stopped,
        "pace": run.pace.model_dump(),
        "waves": [
            {
                "number": number,
                "hosts": wave,
                "verdict": asdict(progress.verdicts[number]) if number in progress.verdicts else None,
            }
            for number, wave in enumerate(run.waves, start=1)
        ],
        "hosts": {name: _host(run, name) for name in run.hosts},
        "comparison": [asdict(row) for row in progress.comparison],
    }


def outcome(run: FleetRun) -> str:
    """Return how the rollout ended in a word, or `running`."""
    progress = run.progress
    if progress.leases:
        return "interrupted" if progress.interrupted else "running"
    if progress.interrupted:
        return "interrupted"
    if progress.stopped:
        return "taken back" if progress.taken_back else "stopped"
    return "incomplete" if progress.failures() or _untouched(run) else "done"


def ending(run: FleetRun, name: str) -> str:
    """Return how a host's part ended, in words."""
    progress = run.progress
    back = progress.taken_back.get(name)
    if back:
        return f"taken back to {progress.previous(name)}: {back.text()}"
    if name in progress.outcomes:
        return progress.outcomes[name].text()
    if any(name in wave for wave in run.waves):
        return "not touched"
    if name not in run.nodes or not run.nodes[name].facts:
        return "could not be reached"
    return "already served its release" if run.intent == "deploy" else "stays"


def summary(run: FleetRun) -> list[str]:
    """Return the lines that end the run on the terminal."""
    progress = run.progress
    seconds = (datetime.now(UTC) - run.started).total_seconds()
    counts = Counter(ending(run, name).split(":")[0].split(" to ")[0] for name in run.hosts)
    numbers = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    lines = [f"rollout {run.rollout}: {outcome(run)} after {seconds:.0f} s; hosts: {numbers}"]
    if progress.stopped:
        lines.append(f"stopped: {progress.stopped}")
    if progress.stayed:
        lines.append(progress.stayed)
    if outcome(run) != "done":
        lines.append("next: fix what stopped it, then run the same command again; it continues where this one stopped")
    return lines


def _untouched(run: FleetRun) -> list[str]:
    return [name for wave in run.waves for name in wave if name not in run.progress.outcomes]


def _host(run: FleetRun, name: str) -> dict[str, Any]:
    progress, node = run.progress, run.status(name)
    activation = progress.outcomes.get(name)
    back = progress.taken_back.get(name)
    last = node.last if node.last and node.last.rollout == run.rollout else Ended()
    # A rollback leaves some hosts as they are.
    wanted = run.intent == "deploy" or name in run.targets
    return {
        "release": run.wanted(name) if wanted else None,
        "image_tag": run.target(name).image_tag if wanted else None,
        "before": progress.previous(name),
        "current": node.current,
        "verified": node.verified,
        "ending": ending(run, name),
        "activation": asdict(activation) if activation else None,
        "taken_back": asdict(back) if back else None,
        "phases": [asdict(phase) for phase in last.phases],
        "gates": last.figures or {},
    }


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

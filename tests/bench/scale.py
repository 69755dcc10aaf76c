"""How the controller's time and memory grow with the fleet, on pyinfra's fake connector."""

from __future__ import annotations

import resource
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from sparkfleet import ROOT
from sparkfleet.inventory.entry import HostEntry
from sparkfleet.rollout.fleet_run import plan_run
from tests.bench.measure import LONGEST_S, Series, interleaved, spread
from tests.bench.snapshot import PYINFRA
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, release_of, serving


def fake(folder: Path, count: int) -> FakeFleet:
    """Fake hosts that serve what is wanted."""
    folder.mkdir()
    fleet = FakeFleet(folder, [f"spark-{number}" for number in range(count)])
    fleet.probes = dict.fromkeys(fleet.hosts, serving(release_of(CURRENT_TAG)))
    return fleet


def measure(folder: Path, counts: Sequence[int], rounds: int) -> dict[str, Series]:
    commands = {}
    for count in counts:
        inventory = str(fake(folder / str(count), count).write())
        commands[f"no-op, {count} hosts"] = [PYINFRA, inventory, "deploy.py", "-y", "--chdir", str(ROOT)]
    few = str(fake(folder / "few", 4).write())
    show = [sys.executable, "-m", "sparkfleet", "show", "@fake/spark-0", "--inventory", few]
    return interleaved(
        {**commands, "sparkfleet show, 4 hosts in the inventory": ["env", "-C", str(ROOT), *show]}, rounds, folder
    )


def planning(folder: Path, count: int, rounds: int) -> list[str]:
    """Compile every host's release, once with all hosts set alike and once in many ways."""
    data = {key: value for key, value in runpy.run_path(str(ROOT / "group_data/all.py")).items() if key[0] != "_"}
    data |= fake(folder / "planning", 1).data
    lines = []
    for what, settings in (("alike", 1), ("in 64 ways", 64)):
        seconds = []
        for _ in range(rounds):
            entries = [
                HostEntry(f"n{n}", f"n{n}:22", (), {**data, "overrides": {"max_num_seqs": 1 + n % settings}})
                for n in range(count)
            ]
            began = time.monotonic()
            plan_run(entries)
            seconds.append(time.monotonic() - began)
        lines.append(f"| {count} hosts, set {what} | {spread(seconds)} | {count / median(seconds):.0f} |")
    return lines


def rolling(folder: Path, count: int, batch_size: int | None) -> str:
    """Roll a release through fake hosts whose engines start at once; return a row: what is left is the controller's."""
    fleet = fake(folder / f"rolled-{count}-{batch_size}", count)
    fleet.probes = dict.fromkeys(fleet.hosts, serving(release_of(PREFIX_TAG)))
    fleet.data |= {"batch_size": batch_size} if batch_size else {}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with fleet.start("-y") as run:
        output, _ = run.process.communicate(timeout=LONGEST_S)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.process.returncode:
        raise RuntimeError(output[-300:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    waves = output.count("--> Wave ")
    looks = sum("sparknode status" in command for _, command in run.commands())
    # The largest child so far: sizes are measured from small to large.
    peak = after.ru_maxrss / 1024
    return (
        f"| {count} | {batch_size or 'default'} | {waves} | {wall:.1f} | {cpu:.1f} | {peak:.0f} "
        f"| {len(output.splitlines())} | {looks} |"
    )


def report(counts: Sequence[int], series: dict[str, Series]) -> list[str]:
    """Return the page's lines; a fleet of twice the size shall cost each further host the same."""
    lines = ["| command | wall, s | CPU, s | peak MiB |", "|---|---|---|---|"]
    lines += [f"| {name} | {one.cells()} |" for name, one in series.items()]
    figures = [series[f"no-op, {count} hosts"] for count in counts]
    lines += ["", "| from, to | CPU for each further host, ms | memory for each further host, KiB |", "|---|---|---|"]
    for (less, before), (more, after) in zip(
        zip(counts, figures, strict=True), zip(counts[1:], figures[1:], strict=True), strict=False
    ):
        cpu = (median(after.cpu) - median(before.cpu)) / (more - less) * 1000
        memory = (after.peak_mib - before.peak_mib) / (more - less) * 1024
        lines.append(f"| {less}, {more} | {cpu:.1f} | {memory:.0f} |")
    return lines

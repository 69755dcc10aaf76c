"""Every benchmark, and the page that tells of them: `make bench`, as root; `--small` proves in a minute that they work.

A part that this machine cannot carry out says so on the page, and the others go on.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from sparkfleet import ROOT
from tests.bench import converge, rolling, scale, snapshot
from tests.bench.lighthosts import light_hosts
from tests.bench.measure import spread

PAGE = ROOT / "docs/benchmarks.md"
# What stands above it is written by hand.
MARK = "<!-- figures: written by `make bench` -->"


@dataclass(frozen=True)
class Plan:
    """How much is measured: light hosts with the rounds that they and Ansible get, and the sizes of the rest."""

    nodes: int
    light: Sequence[tuple[int, int, int]]
    fake: Sequence[int]
    # Rollouts over fake hosts, from small to large: how many, and the batch_size where it is not the default.
    rolled: Sequence[tuple[int, int | None]]
    rounds: int
    others: Sequence[tuple[str, str, Sequence[str]]]


FULL = Plan(
    4,
    ((4, 4, 2), (16, 3, 2), (64, 2, 0), (128, 1, 0)),
    (50, 100, 200),
    ((50, 1), (100, 1), (200, 1), (250, None), (500, None), (1000, None)),
    3,
    (
        ("Spread: swarm", "spread", ("--megabytes", "300", "--engines", "swarm")),
        ("Spread: rsync star", "spread", ("--megabytes", "50", "--engines", "rsync")),
        ("Hashing", "hashing", ("--megabytes", "128")),
    ),
)
SMALL = Plan(
    1,
    ((2, 1, 0),),
    (2, 4),
    ((2, 1), (4, None)),
    1,
    (
        ("Spread", "spread", ("--megabytes", "5", "--hosts", "2")),
        ("Hashing", "hashing", ("--megabytes", "4")),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--small", action="store_true", help="little of everything, and no page")
    small = parser.parse_args().small
    plan = SMALL if small else FULL
    began, failed = time.monotonic(), []
    lines = head()
    with tempfile.TemporaryDirectory(prefix="sparkfleet-bench-") as name:
        folder = Path(name)
        # Many light hosts last: the load that they leave behind would be measured with what comes after them.
        parts: dict[str, Callable[[], Iterable[str]]] = {
            **{title: partial(other, name, words) for title, name, words in plan.others},
            "Scale": lambda: scaling(folder, plan),
            "Booted hosts, light hosts and Ansible": lambda: hosts(folder, plan),
        }
        for title, part in parts.items():
            print(f"{(time.monotonic() - began) / 60:4.1f} min: {title} …", file=sys.stderr, flush=True)
            lines += ["", f"## {title}", ""]
            try:
                # Line by line, so that what was measured before a failure stays.
                for line in part():
                    lines.append(line)
            except Exception as problem:
                traceback.print_exc()
                failed.append(title)
                lines += ["", f"Not measured to its end: {(str(problem).splitlines() or [repr(problem)])[-1][:300]}"]
    lines += ["", f"All of it took {(time.monotonic() - began) / 60:.1f} minutes."]
    text = "\n".join(lines) + "\n"
    print(text)
    if not small:
        kept = PAGE.read_text().partition(MARK)[0]
        PAGE.write_text(f"{kept}{MARK}\n\n{text}")
    return int(bool(failed))


def head() -> list[str]:
    """What was measured, where and when."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = int(next(line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))) / 1024**2
    names = ("pyinfra", "paramiko", "gevent", "pydantic")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return [
        f"{datetime.date.today()}, {os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB, Linux "
        f"{platform.release()}, Python {platform.python_version()}, {versions}; load before: {os.getloadavg()[0]:.1f}. "
        "Controller and all hosts share this machine. Medians (lowest–highest).",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def scaling(folder: Path, plan: Plan) -> list[str]:
    lines = scale.report(plan.fake, scale.measure(folder, plan.fake, plan.rounds))
    lines += [
        "",
        "| fake hosts rolled | batch_size | waves | wall, s | CPU, s | peak MiB | lines printed | looks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [scale.rolling(folder, count, batch_size) for count, batch_size in plan.rolled]
    lines += ["", "| compiling every release | s | hosts a second |", "|---|---|---|"]
    return lines + scale.planning(folder, plan.fake[-1], plan.rounds)


def hosts(folder: Path, plan: Plan) -> Iterator[str]:
    """One spell of booted hosts, then light ones that repeat the first of them."""
    with snapshot.lab(plan.nodes) as state:
        first = rolling.roll(state)
        taken, lock = snapshot.take(state, folder)
        again = rolling.roll(state, f"image_tag={rolling.OTHER_TAG}")
    yield (
        f"| {plan.nodes} booted hosts, simulated engine that loads in 2 s | command, s | waves by the journals, s "
        "| ratio | added a wave, s | goal |"
    )
    yield "|---|---|---|---|---|---|"
    for what, one, goal in (("first deploy", first, "5 s a wave"), ("rolling upgrade", again, "ratio 1.1")):
        cells = f"{one.wall:.1f} | {sum(one.waves):.1f} in {len(one.waves)} | {one.ratio:.2f} | {one.added:.1f}"
        yield f"| {what}, after staging | {cells} | {goal} |"
    yield (
        f"\nA probe on a booted host: {spread(taken.probe.wall)} s wall (goal: 1), {spread(taken.probe.cpu)} s CPU "
        "with every program that it asks (goal: 0.3)."
    )
    for count, rounds, peer_rounds in plan.light:
        with light_hosts(count, taken) as light:
            yield from converge.report(count, converge.measure(folder, lock, light, rounds, peer_rounds))


def other(name: str, words: Sequence[str]) -> list[str]:
    """A benchmark of its own; 1 is its word for a missed bound, which the page shows and does not judge."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode not in (0, 1) or "Traceback" in done.stderr:
        raise RuntimeError(f"tests.bench.{name} ended with {done.returncode}: {done.stderr[-500:] or 'no word'}")
    return ["```", *done.stdout.splitlines(), "```"]


if __name__ == "__main__":
    sys.exit(main())

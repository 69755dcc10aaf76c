"""Wall time and client CPU of commands, interleaved so that a busy machine is busy for all of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

# A command that takes longer hangs.
LONGEST_S = 400


@dataclass
class Series:
    """Seconds of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    remote_commands: list[int] = field(default_factory=list)

    def cells(self) -> str:
        """Cells of a table: wall time, client CPU and peak memory, medians with ranges."""
        return f"{spread(self.wall)} | {spread(self.cpu)} | {self.peak_mib:.0f}"


def spread(numbers: Sequence[float]) -> str:
    return f"{median(numbers):.2f} ({min(numbers):.2f}–{max(numbers):.2f})"


def ratio(one: Series, other: Series) -> float:
    """How many times as long the one took, by medians of wall time."""
    return median(one.wall) / median(other.wall)


def interleaved(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    cwd: Path,
    before: Callable[[str], None] = lambda _: None,
    count: Callable[[], int] = lambda: 0,
    fewer: Mapping[str, int] | None = None,
    **env: str,
) -> dict[str, Series]:
    """Run each command once unmeasured, then all of them `rounds` times in turn.

    Those in `fewer` take part in so many rounds only, and not in the first. `before` is told which comes next; `count`
    says afterwards how many commands reached hosts. Raises RuntimeError with a command's own words when it fails: a
    figure of something that broke is none.
    """
    series = {name: Series() for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            if name in (fewer or {}) and not 0 < number <= (fewer or {})[name]:
                continue
            before(name)
            wall, cpu, peak = _once(name, argv, cwd, env)
            reached = count()
            if number:
                series[name].remote_commands.append(reached)
                series[name].wall.append(wall)
                series[name].cpu.append(cpu)
                series[name].peak_mib = max(series[name].peak_mib, peak)
    return series


def _once(name: str, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> tuple[float, float, float]:
    started = time.monotonic()
    with (cwd / "last.log").open("w+b") as log:
        process = subprocess.Popen(
            ["timeout", str(LONGEST_S), *argv],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        # wait4 tells what this one process and its children used, whatever else has been run before.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{name} ended with {process.returncode}: {said}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

"""Runs the test tiers and reports each: `python -m tests.tiers fast docs lab`.

What mostly waits runs side by side: each lane is a thread of tiers, and two lanes have a lab of their own. A tier that
this machine cannot run is skipped with the reason; with CI=true that is a failure, so that a green run never hides one.
A test that was skipped inside a tier is in the summary with its reason.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
_PYTEST = (sys.executable, "-m", "pytest", "-q")
# No tier takes a quarter of this on two cores; one that hangs must not take the others' answers with it.
TIER_S = 3600


@dataclass(frozen=True)
class Tier:
    """Some commands that run one after the other until one fails, and the lane they run in."""

    commands: tuple[tuple[str, ...], ...]
    lane: str
    needs_lab: bool = False
    limit_s: float = TIER_S
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    verdict: str
    seconds: float
    skipped: tuple[str, ...] = ()

    @property
    def is_bad(self) -> bool:
        return self.verdict.startswith("failed")


def _pytest(*arguments: str) -> tuple[str, ...]:
    return (*_PYTEST, *arguments)


def _on_lab(part: str, number: int, *arguments: str, **environment: str) -> Tier:
    environment["SPARKFLEET_LAB_NUMBER"] = str(number)
    command = _pytest("--durations=5", *arguments, f"tests/lab/{part}")
    return Tier((command,), f"lab {number}", needs_lab=True, environment=environment)


_LINT = (
    (str(BIN / "ruff"), "format", "--check", "--quiet", "."),
    (str(BIN / "ruff"), "check", "--quiet", "."),
    (str(BIN / "mypy"),),
)
# Hosts mostly wait, and so do the hub's storms: more workers than cores.
TIERS = {
    "lint": Tier(_LINT, "first, lint"),
    "unit": Tier((_pytest("-n", "2", "tests/unit", "--ignore=tests/unit/lab"),), "first, unit"),
    "cases": _on_lab("cases", 0),
    "newcomer": _on_lab("newcomer", 0),
    # It looks at the whole machine for what labs leave, so no other lab may stand.
    "selftest": replace(_on_lab("selftest", 0), lane="last"),
    "pairs": _on_lab("pairs", 1, "-n", "2"),
    "crash": _on_lab("crash", 1, "-n", "3"),
    "realcases": _on_lab("realcases", 1),
    "spread": Tier((_pytest("--durations=5", "tests/lab/spread"),), "others", needs_lab=True),
    # The lab's own parts, its engine and its hub among them.
    "parts": Tier((_pytest("-n", "2", "tests/unit/lab"),), "others"),
    "plan": Tier((_pytest("-n", "2", "tests/plan"),), "others"),
    "docs": Tier((_pytest("-n", "2", "--dist", "loadfile", "tests/docs"),), "others"),
    "hub": Tier((_pytest("-n", "4", "tests/hub"),), "others"),
    "walk": Tier((_pytest("-n", "2", "tests/walk"),), "others"),
    "contract": Tier((_pytest("tests/contract", "tests/sglang"),), "others"),
    "crash-all": replace(_on_lab("crash", 0, "-n", "3", SPARKFLEET_CRASH="all"), limit_s=2 * TIER_S),
}
LAB = ("spread", "cases", "newcomer", "selftest", "pairs", "crash", "realcases")
GROUPS = {"fast": ("lint", "unit"), "lab": LAB, "all": tuple(name for name in TIERS if name != "crash-all")}


def stages(names: Sequence[str]) -> list[list[list[str]]]:
    """Return what runs after what, stages of lanes of tiers: the quick ones first, what needs the machine last."""
    lanes: dict[str, list[str]] = {}
    for name in names:
        lanes.setdefault(TIERS[name].lane, []).append(name)
    ordered: list[list[list[str]]] = [[], [], []]
    for key, lane in lanes.items():
        ordered[0 if key.startswith("first") else 2 if key == "last" else 1].append(lane)
    return [stage for stage in ordered if stage]


def obstacle() -> str | None:
    """Return why no lab can run on this machine, or None."""
    check = subprocess.run(
        [sys.executable, "-m", "tests.lab", "check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return None if check.returncode == 0 else (check.stdout + check.stderr).strip()


class Run:
    """One call of this module: what came out so far, and whether to go on."""

    def __init__(self, *, ci: bool, without_lab: str | None) -> None:
        self.results: dict[str, Result] = {}
        self._ci = ci
        self._without_lab = without_lab
        self._stopped = False
        self._printing = threading.Lock()
        self._children: set[int] = set()

    @property
    def failed(self) -> bool:
        return any(result.is_bad for result in self.results.values())

    def lane(self, names: Sequence[str]) -> None:
        """Run tiers one after the other; nothing new is begun once any tier has failed."""
        for name in names:
            if self.failed or self._stopped:
                return
            self.results[name] = self._tier(TIERS[name])
            self._show(f"tier {name}: {self.results[name].verdict} after {self.results[name].seconds:.0f} s")

    def stop(self) -> None:
        """Begin nothing more, and interrupt what runs, as Ctrl-C does: pytest then takes its lab down."""
        self._stopped = True
        for group in tuple(self._children):
            self._interrupt(group)

    def _interrupt(self, group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGINT)

    def _tier(self, tier: Tier) -> Result:
        started = time.monotonic()
        if tier.needs_lab and self._without_lab:
            verdict = "failed" if self._ci else "skipped"
            return Result(f"{verdict}: {self._without_lab}", 0)
        with tempfile.TemporaryDirectory() as folder:
            skipped, log = Path(folder, "skipped"), Path(folder, "log")
            skipped.touch()
            verdict = "passed"
            for command in tier.commands:
                status = self._command(
                    command, {**tier.environment, "SPARKFLEET_SKIPPED": str(skipped)}, log, tier.limit_s
                )
                self._show(f"$ {' '.join((Path(command[0]).name, *command[1:]))}\n{log.read_text(errors='replace')}")
                if status != 0:
                    verdict = "failed" if status is not None else f"failed: not done within {tier.limit_s:.0f} s"
                    break
            rows = [line.split("\t", 1) for line in skipped.read_text().splitlines()]
        told = tuple(f"{count} × {reason}" for count, reason in rows)
        if told and verdict == "passed":
            verdict = f"passed, {sum(int(count) for count, _ in rows)} skipped"
        return Result(verdict, time.monotonic() - started, told)

    def _command(self, command: Sequence[str], environment: Mapping[str, str], log: Path, limit_s: float) -> int | None:
        with log.open("wb") as output:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._children.add(child.pid)
            if self._stopped:
                # It was started while `stop` looked through the others.
                self._interrupt(child.pid)
            try:
                return child.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return None
            finally:
                self._children.discard(child.pid)

    def _show(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)


def main(arguments: Sequence[str]) -> int:
    names = [name for argument in arguments for name in GROUPS.get(argument, (argument,))]
    unknown = [name for name in names if name not in TIERS]
    if unknown or not names:
        known = " ".join((*TIERS, *GROUPS))
        print(f"usage: python -m tests.tiers TIER… (unknown: {', '.join(unknown) or 'none given'}; known: {known})")
        return 2
    without_lab = obstacle() if any(TIERS[name].needs_lab for name in names) else None
    run = Run(ci=os.environ.get("CI") == "true", without_lab=without_lab)
    # SIGTERM leaves as Ctrl-C does: with nothing running behind it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell's background job inherits SIGINT ignored, and so would every tier, which `stop` ends by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stage in stages(names):
        with ThreadPoolExecutor(len(stage)) as pool:
            try:
                for lane in [pool.submit(run.lane, lane) for lane in stage]:
                    lane.result()
            except BaseException:
                run.stop()
                raise
        if run.failed:
            break
    print()
    print("\n".join(summary(names, run.results)))
    return 1 if run.failed or set(names) - set(run.results) else 0


def summary(names: Sequence[str], results: Mapping[str, Result]) -> list[str]:
    """Return a line for each tier that was asked for, and one for each reason why tests were skipped."""
    lines = []
    for name in names:
        result = results.get(name)
        lines.append(
            f"tier {name:9} {result.verdict} ({result.seconds:.0f} s)"
            if result
            else f"tier {name:9} not run: another tier failed first"
        )
        lines += [f"     skipped: {reason}" for reason in (result.skipped if result else ())]
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

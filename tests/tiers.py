"""Runs the test tiers one after the other and says which one failed: `python -m tests.tiers fast docs hub walk lab`.

A tier that this machine cannot run is reported as skipped with the reason; with CI=true in the environment that is a
failure, so that a green run never hides one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
_PYTEST = [sys.executable, "-m", "pytest", "-q", "--durations=10"]


def _fast() -> list[list[str]]:
    return [
        [str(BIN / "ruff"), "format", "--check", "--quiet", "."],
        [str(BIN / "ruff"), "check", "--quiet", "."],
        [str(BIN / "mypy")],
        [sys.executable, "-m", "pytest", "-q", "-n", "3", "-m", "not contract", "tests/plan", "tests/unit"],
    ]


def _lab() -> list[list[str]]:
    # A process each: the cases share one lab, the real engine needs its own, and the self-tests end labs.
    alone = {part: [*_PYTEST, f"tests/lab/{part}"] for part in ("spread", "cases", "newcomer", "realcases", "selftest")}
    pairs, crash = _side_by_side("pairs", 2), _side_by_side("crash", 3)
    # Figures gate nothing; that the benchmarks still measure something does.
    bench = [sys.executable, "-m", "tests.bench", "--small"]
    booted = [alone["cases"], alone["newcomer"], pairs, crash, alone["realcases"], alone["selftest"]]
    return [alone["spread"], *booted, bench]


def _side_by_side(part: str, workers: int) -> list[str]:
    # Hosts mostly wait, so two cores carry several workers with hosts of their own.
    return [*_PYTEST, "-n", str(workers), f"tests/lab/{part}"]


def _crash() -> list[list[str]]:
    return [["env", "SPARKFLEET_CRASH=all", *_side_by_side("crash", 3)]]


def _docs() -> list[list[str]]:
    return [[sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", "tests/docs"]]


def _hub() -> list[list[str]]:
    # The hub's storms are mostly waited for, so more workers than cores.
    return [[sys.executable, "-m", "pytest", "-q", "-n", "4", "tests/hub"]]


def _walk() -> list[list[str]]:
    return [[sys.executable, "-m", "pytest", "-q", "-n", "auto", "tests/walk"]]


def _contract() -> list[list[str]]:
    return [[sys.executable, "-m", "pytest", "-q", "-m", "contract", "tests/contract", "tests/sglang", "tests/unit"]]


TIERS: dict[str, Callable[[], list[list[str]]]] = {
    "fast": _fast,
    "docs": _docs,
    "hub": _hub,
    "walk": _walk,
    "lab": _lab,
    "contract": _contract,
    "crash": _crash,
}


def obstacle(tier: str) -> str | None:
    """Return why the tier cannot run on this machine, or None."""
    if tier not in ("lab", "crash"):
        return None
    check = subprocess.run(
        [sys.executable, "-m", "tests.lab", "check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return None if check.returncode == 0 else (check.stdout + check.stderr).strip()


def run(tier: str) -> tuple[str, float]:
    """Run a tier's commands until one fails; return the verdict and the seconds it took."""
    started = time.monotonic()
    reason = obstacle(tier)
    if reason is not None:
        verdict = "failed" if os.environ.get("CI") == "true" else "skipped"
        print(f"tier {tier}: {verdict}: {reason}", flush=True)
        return f"{verdict}: {reason}", time.monotonic() - started
    for command in TIERS[tier]():
        print(
            f"tier {tier}: {' '.join(Path(command[0]).name if i == 0 else c for i, c in enumerate(command))}",
            flush=True,
        )
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return "failed", time.monotonic() - started
    return "passed", time.monotonic() - started


def main(tiers: list[str]) -> int:
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown or not tiers:
        print(f"usage: python -m tests.tiers {' '.join(TIERS)} (unknown: {', '.join(unknown) or 'none given'})")
        return 2
    results = {}
    for tier in tiers:
        results[tier] = run(tier)
        if results[tier][0] == "failed":
            break
    print("")
    for tier, (verdict, seconds) in results.items():
        print(f"tier {tier:9} {verdict} ({seconds:.0f} s)")
    return 1 if any(verdict.startswith("failed") for verdict, _ in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The real sparkrun, in an environment of its own: it needs a newer Python than the project does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.contract.venv import HERE, install, made

PINS = HERE / "requirements-sparkrun.txt"
NEEDED = (3, 12)
TIMEOUT_S = 120


@dataclass(frozen=True)
class Reading:
    """What sparkrun says of a recipe: (severity, code) of each issue, the drafter that it would fetch, its command."""

    issues: list[tuple[str, str]]
    drafter: tuple[str | None, str | None]
    command: str


@cache
def python() -> str | None:
    """A Python that is new enough for sparkrun, or None where this machine has none."""
    return next((path for path in _candidates() if _is_new_enough(path)), None)


def _candidates() -> Iterator[str]:
    yield sys.executable
    for minor in range(NEEDED[1], NEEDED[1] + 4):
        if found := shutil.which(f"python3.{minor}"):
            yield found
    # pyenv has versions beside the one that it puts on PATH.
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from map(str, sorted(versions.glob("3.1[2-9]*/bin/python")))


def _is_new_enough(path: str) -> bool:
    asked = f"import sys, venv; sys.exit(sys.version_info[:2] < {NEEDED})"
    try:
        return subprocess.run([path, "-c", asked], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def read(recipes: Sequence[str]) -> list[Reading]:
    """Ask sparkrun about each recipe, all of them in one process that has a home of its own."""
    interpreter = python()
    assert interpreter is not None
    env = made("sparkrun", PINS.read_text(), lambda env: install(env, "--requirement", str(PINS)), interpreter)
    with tempfile.TemporaryDirectory(prefix="sparkrun-") as home:
        paths = []
        for number, text in enumerate(recipes):
            path = Path(home) / f"recipe-{number}.yaml"
            path.write_text(text)
            paths.append(str(path))
        done = subprocess.run(
            [str(env / "bin" / "python"), str(HERE / "sparkrun_reads.py"), *paths],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={"HOME": home, "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )
    if done.returncode != 0:
        raise RuntimeError(f"sparkrun ended with {done.returncode}:\n{done.stderr[-3000:]}")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Reading([(str(severity), str(code)) for severity, code in row["issues"]], tuple(row["drafter"]), row["command"])
        for row in documents
    ]

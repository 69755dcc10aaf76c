"""System packages: one list, and what is done about those that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import system
from tests.lab.config import ROOT

NAMES = ["aria2", "skopeo"]


def test_the_list_is_well_formed() -> None:
    found = system.packages()
    assert len({package.name for package in found}) == len(found) > 10
    assert [package.name for package in found] == sorted(package.name for package in found)


@pytest.mark.parametrize(
    ("names", "no_apt", "has_apt", "prefix", "runs", "tells"),
    [
        ([], False, True, [], 0, ""),
        (NAMES, False, True, [], 2, "installing system packages (SPARKFLEET_NO_APT=1"),
        (NAMES, False, True, ["sudo", "-n"], 2, "installing"),
        (NAMES, False, True, None, 0, "sudo sh -c 'apt-get update && apt-get install"),
        (NAMES, True, True, [], 0, "SPARKFLEET_NO_APT is set"),
        (NAMES, False, False, [], 0, "neither Debian nor Ubuntu"),
        (NAMES, False, False, None, 0, "neither Debian nor Ubuntu"),
    ],
)
def test_what_is_done(
    names: list[str], no_apt: bool, has_apt: bool, prefix: list[str] | None, runs: int, tells: str
) -> None:
    commands, text = system.plan(names, no_apt=no_apt, has_apt=has_apt, prefix=prefix)
    assert len(commands) == runs
    assert tells in text
    assert all(name in text for name in names)
    assert all(command[: len(prefix or [])] == (prefix or []) for command in commands)


def stand_ins(folder: Path, **scripts: str) -> dict[str, str]:
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return {"PATH": str(folder), "CALLS": str(folder / "calls")}


def setup(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    # Without the folders of administration, where the real apt-get may be.
    text = f"import runpy, os; os.environ.setdefault('X', ''); m = runpy.run_path({str(ROOT / 'tests/system.py')!r}); "
    text += "m['main'].__globals__['PATH'] = os.environ['PATH']; raise SystemExit(m['main']())"
    return subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=False)


def test_apt_is_asked_for_what_is_missing_and_its_failure_is_told(tmp_path: Path) -> None:
    sudo = 'shift; exec "$@"'
    environment = stand_ins(
        tmp_path, apt_get='echo "$@" >>"$CALLS"', skopeo="", sudo=sudo, env='shift; exec "$@"', true="exit 0"
    )
    done = setup(environment)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "update -qq"
    assert "skopeo" not in calls[1]
    assert "aria2" in calls[1]
    assert done.stdout.count("\n") == 1

    stand_ins(tmp_path, apt_get="echo no such mirror >&2; exit 100")
    done = setup(environment)
    assert done.returncode == 1
    assert "no such mirror" in done.stdout
    assert "SPARKFLEET_NO_APT=1" in done.stdout

    done = setup({**environment, "SPARKFLEET_NO_APT": "1"})
    assert done.returncode == 0
    assert "is set" in done.stdout

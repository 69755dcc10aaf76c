"""The system packages of tests/system-packages.txt, installed where they are missing: `python3 tests/system.py`.

The first thing that `make demo` and `make test` run on a fresh machine, so it needs nothing but the system's Python.
`SPARKFLEET_NO_APT=1` leaves the machine alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("system-packages.txt")
# The folders of administration are on root's path alone, and `su` keeps the caller's.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
APT_S = 900
NO_APT = "SPARKFLEET_NO_APT"


class Package(NamedTuple):
    """A package of the distribution, and what tells that it is there: a program, or a module of the system's Python."""

    name: str
    brings: str


def packages() -> list[Package]:
    """Return the list's packages in its order."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [Package(*line.split()) for line in lines if line.strip() and not line.startswith("#")]


def missing() -> list[str]:
    """Return the names of the packages that this machine lacks, whoever brought what they bring."""
    return [package.name for package in packages() if not _is_there(package.brings)]


def install_command(names: list[str]) -> list[str]:
    """Return the command that installs them; the prompt of a package never stops it."""
    return ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends", *names]


def typed(names: list[str]) -> str:
    """Return the one command for a person to type."""
    return f"sudo sh -c 'apt-get update && apt-get install --no-install-recommends {' '.join(names)}'"


def plan(names: list[str], *, no_apt: bool, has_apt: bool, prefix: list[str] | None) -> tuple[list[list[str]], str]:
    """Decide what to run and what to print.

    :param names: the missing packages
    :param prefix: what becomes root without a password (empty for root itself), None where nothing does
    """
    listed = " ".join(names)
    if not names:
        return [], ""
    if no_apt:
        return [], f"setup: {NO_APT} is set, so these stay missing: {listed}"
    if not has_apt:
        return [], f"setup: this is neither Debian nor Ubuntu; install what these packages bring there: {listed}"
    if prefix is None:
        return [], f"setup: some system packages are missing; to install them type\n    {typed(names)}"
    commands = [[*prefix, "apt-get", "update", "-qq"], [*prefix, *install_command(names)]]
    return commands, f"setup: installing system packages ({NO_APT}=1 leaves the machine alone): {listed}"


def main() -> int:
    """Install what is missing, or print why not; 1 where apt failed."""
    names = missing()
    has_apt = shutil.which("apt-get", path=PATH) is not None
    commands, text = plan(names, no_apt=os.environ.get(NO_APT) == "1", has_apt=has_apt, prefix=_become_root())
    if text:
        print(text, flush=True)
    for command in commands:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=APT_S, check=False
            )
            failed = done.returncode != 0
            why = (done.stderr or done.stdout).strip()[-1500:]
        except (OSError, subprocess.TimeoutExpired) as error:
            failed, why = True, str(error)
        if failed:
            print(f"{why}\nsetup: `{' '.join(command)}` failed; fix that and run the same make target again, or set")
            print(f"       {NO_APT}=1 to go on without: {' '.join(names)}")
            return 1
    return 0


def _is_there(brought: str) -> bool:
    kind, _, module = brought.rpartition(":")
    return find_spec(module) is not None if kind else shutil.which(brought, path=PATH) is not None


def _become_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=30, check=False)
    return ["sudo", "-n"] if asked.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())

"""What a newcomer types first on an unedited checkout: one screen, no traceback, each thing once, and what is next."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparkfleet.rollout import exit_codes

SCREEN = 40
# Each command, and how it ends; none of them writes anything, so that their order changes nothing.
COMMANDS = {
    "pyinfra inventory/prod.py deploy.py --dry": exit_codes.REFUSED,
    "pyinfra inventory/prod.py deploy.py": exit_codes.REFUSED,
    "pyinfra inventory/prod.py tasks/preflight.py -y": exit_codes.REFUSED,
    "pyinfra inventory/prod.py tasks/stage.py --dry": exit_codes.REFUSED,
    "pyinfra inventory/prod.py tasks/status.py": exit_codes.UNREACHABLE,
    "pyinfra inventory/prod.py tasks/history.py": exit_codes.UNREACHABLE,
    "pyinfra inventory/prod.py tasks/rollback.py": exit_codes.UNREACHABLE,
    "pyinfra inventory/prod.py tasks/restart.py -y": exit_codes.UNREACHABLE,
    "pyinfra inventory/prod.py tasks/retire.py": exit_codes.REFUSED,
    "sparkfleet deploy": exit_codes.REFUSED,
    "sparkfleet status": exit_codes.UNREACHABLE,
    "sparkfleet validate inventory/prod.py": 0,
    "sparkfleet": 0,
}
# What a command prints where nothing is to be fixed.
ITSELF = {"sparkfleet": "deploy  "}
UNSETTLED = ("terms: the terms of ", "exposure: ", "fleet.lock.json", "run `python -m sparkfleet lock`")


def typed(command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command.split()
    words = [str(Path(sys.executable).with_name(program)), *arguments]
    environment = {**os.environ, "PYINFRA_PROGRESS": "off", "COLUMNS": "100"}
    return subprocess.run(
        words,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_first_command_ends_in_one_screen_that_says_what_is_next(command: str) -> None:
    done = typed(command)
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert done.returncode == COMMANDS[command], said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= SCREEN, said
    assert ITSELF.get(command, "next: ") in said, said
    alike = Counter(re.sub(r"spark-\d\d\.local", "HOST", line) for line in said.splitlines() if "  –  " not in line)
    twice = [line for line, count in alike.items() if count > 1 and len(line) > 40]
    assert not twice, said


@pytest.mark.parametrize("command", ["sparkfleet validate inventory/prod.py", "sparkfleet deploy"])
def test_validating_and_deploying_ask_for_the_same_decisions(command: str) -> None:
    said = typed(command).stdout
    for words in UNSETTLED:
        assert said.count(words) == 1, said

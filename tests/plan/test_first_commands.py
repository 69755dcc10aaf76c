"""What a newcomer types first on an unedited checkout: one screen, no traceback, and what to do next."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkfleet import ROOT, exits

SCREEN = 40
COMMANDS = {
    "deploy.py --dry": exits.REFUSED,
    "deploy.py": exits.REFUSED,
    "tasks/preflight.py -y": exits.REFUSED,
    "tasks/stage.py --dry": exits.REFUSED,
    "tasks/status.py": exits.UNREACHABLE,
    "tasks/history.py": exits.UNREACHABLE,
    "tasks/rollback.py": exits.UNREACHABLE,
    "tasks/restart.py -y": exits.UNREACHABLE,
    "tasks/retire.py": exits.REFUSED,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_first_command_ends_in_one_screen_that_says_what_is_next(command: str) -> None:
    words = [str(Path(sys.executable).with_name("pyinfra")), "inventory/prod.py", *command.split()]
    environment = {**os.environ, "PYINFRA_PROGRESS": "off", "COLUMNS": "100"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert done.returncode == COMMANDS[command], said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= SCREEN, said
    assert "next:" in said or "cannot be reached" in said, said
    assert done.stderr.count("terms: the terms") <= 1, "each thing is said once"

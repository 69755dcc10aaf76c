"""Running the machine's own programs, with a time limit and an error that can be read."""

from __future__ import annotations

import shlex
import subprocess

from tests.lab.config import LabError


def run(*argv: str, timeout_s: float = 60.0, stdin: str | None = None) -> str:
    """Run a program and return its output; a failure becomes one LabError with its last lines."""
    try:
        result = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{shlex.join(argv)}` did not end within {timeout_s:.0f} s") from error
    except FileNotFoundError as error:
        raise LabError(f"`{argv[0]}` is not installed; run `python -m tests.lab check` to see what is") from error
    if result.returncode:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-5:])
        raise LabError(f"`{shlex.join(argv)}` exited {result.returncode}: {tail or 'it said nothing'}")
    return result.stdout

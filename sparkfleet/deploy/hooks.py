"""The operator's own programs around a rollout: each gets the report as it stands, and may say no."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from contextlib import suppress
from typing import IO, Literal

from gevent import subprocess

from sparkfleet import ROOT
from sparkfleet.report import record
from sparkfleet.rollout.fleet_run import FleetRun

Moment = Literal["pre-rollout", "pre-wave", "post-wave", "post-rollout"]
TIMEOUT_S = 300
_running: set[int] = set()


def call(run: FleetRun, moment: Moment, wave: int | None = None) -> str | None:
    """Run an executable of that name, with one JSON document on its standard input; return why it says no, if it does.

    One that cannot be run, or does not end in time, says no as well: a gate that was not asked is not passed.
    """
    path = ROOT / run.pace.hooks_dir / moment
    if not path.exists():
        return None
    if not os.access(path, os.X_OK):
        return f"hook {moment} cannot be run: chmod +x {path}, or remove it"
    context = json.dumps({**record.document(run), "hook": moment, "wave": wave})
    # Files and no pipes: a program that the hook left running would hold a pipe open, and one that does not read its
    # input would block whoever writes it.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(context.encode())
        given.seek(0)
        try:
            code = _run(str(path), given, said)
        except subprocess.TimeoutExpired:
            return f"hook {moment} did not end within {TIMEOUT_S} s"
        except OSError as error:
            return f"hook {moment} cannot be run: {error}"
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    return f"hook {moment} refused ({code}): {lines[-1] if lines else 'nothing'}" if code else None


def _run(path: str, given: IO[bytes], said: IO[bytes]) -> int:
    """Return the exit code; what the hook started in its session ends with it, and with the time limit."""
    process = subprocess.Popen([path], stdin=given, stdout=said, stderr=said, cwd=ROOT, start_new_session=True)
    _running.add(process.pid)
    try:
        return int(process.wait(TIMEOUT_S))
    finally:
        _end(process.pid)
        process.wait()


def _end(group: int) -> None:
    _running.discard(group)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def end_all() -> None:
    """End the hooks that run now: this process is about to leave, and their answer would be heard by nobody."""
    for group in list(_running):
        _end(group)

"""The operator's own programs around a roll-out: each gets the report as it stands, and may say no."""

from __future__ import annotations

import json
import os
from typing import Literal

from gevent import subprocess

from sparkfleet import ROOT, record
from sparkfleet.fleet import FleetRun

Moment = Literal["pre-rollout", "pre-wave", "post-wave", "post-rollout"]
TIMEOUT_S = 300


def call(run: FleetRun, moment: Moment, wave: int | None = None) -> str | None:
    """Run an executable of that name, with one JSON document on its standard input; return why it says no, if it does.

    One that cannot be run, or does not end in time, says no as well: a gate that was not asked is not passed.
    """
    path = ROOT / run.pace.hooks_dir / moment
    if not path.exists():
        return None
    if not os.access(path, os.X_OK):
        return f"hook {moment} cannot be run: chmod +x {path}, or remove it"
    context = {**record.document(run), "hook": moment, "wave": wave}
    try:
        done = subprocess.run(
            [str(path)], input=json.dumps(context).encode(), capture_output=True, timeout=TIMEOUT_S, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return f"hook {moment} did not end within {TIMEOUT_S} s"
    except OSError as error:
        return f"hook {moment} cannot be run: {error}"
    said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return f"hook {moment} said no ({done.returncode}): {said[-1] if said else 'nothing'}" if done.returncode else None

"""The time limit of a hook holds for everything that it started."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.deploy import hooks
from sparkfleet.inventory.pace import Pace
from sparkfleet.rollout.fleet_run import FleetRun


def living(group: str) -> list[str]:
    """The processes of a group, without zombies that nobody has collected."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, in_group = stat.read_text().rpartition(")")[2].split()[:3]
            found += [stat.parent.name] if in_group == group and state != "Z" else []
    return found


@pytest.mark.parametrize(
    ("script", "says", "at_most_s"),
    [
        ("sleep 60", "did not end within 1 s", 15),
        ("sleep 60 &\nwait", "did not end within 1 s", 15),
        ("trap '' TERM INT\nsleep 60", "did not end within 1 s", 15),
        ("sleep 60 &\nexit 0", None, 15),
        ("sleep 60 >/dev/null 2>&1 &\necho no >&2\nexit 3", "refused (3): no", 15),
        # Its input is larger than a pipe holds, and it reads none of it.
        ("exit 0", None, 15),
        ("printf '\\377 no\\n'; exit 1", "refused (1): \ufffd no", 15),
    ],
)
def test_a_hook_ends_in_time(
    script: str, says: str | None, at_most_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TIMEOUT_S", 1)
    monkeypatch.setattr("sparkfleet.report.record.document", lambda _: {"filling": "x" * 200_000})
    path = tmp_path / "pre-wave"
    path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/group\n{script}\n")
    path.chmod(0o755)
    hosts: dict[str, Any] = {}
    began = time.monotonic()
    answer = hooks.call(FleetRun(hosts, Pace(hooks_dir=str(tmp_path))), "pre-wave", 1)
    assert time.monotonic() - began < at_most_s
    assert (answer is None) if says is None else (says in str(answer))
    group = (tmp_path / "group").read_text().strip()
    # A killed process is there until the kernel has had time to end it.
    until = time.monotonic() + 10
    while living(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert living(group) == []

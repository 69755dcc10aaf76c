"""What was noted is found again and undone, also when the one who noted it died; needs no root."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.lab import ledger, procs


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PATH", tmp_path / "ledger.jsonl")


def test_a_thing_is_noted_once_and_a_torn_line_is_no_entry(tmp_path: Path) -> None:
    ledger.record("path", "/a")
    ledger.record("path", "/b")
    ledger.record("path", "/a")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"kind": "pa')
    assert ledger.entries() == [("path", "/a"), ("path", "/b")]


def test_a_process_and_its_children_end_by_their_note(tmp_path: Path) -> None:
    pidfile = tmp_path / "p.pid"
    ledger.record("process", str(pidfile))
    process = procs.spawn(["sh", "-c", "sleep 600 & sleep 600"], pidfile, tmp_path / "log")
    noted = _noted(pidfile)
    assert noted.pid == process.pid
    assert ledger.undo_all() == []
    process.wait(5)
    assert procs.recorded(pidfile) is None
    assert not pidfile.exists()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pidfile = tmp_path / "p.pid"
    process = procs.spawn(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], pidfile, tmp_path / "log")
    _noted(pidfile)
    assert not procs.end(pidfile, signal.SIGTERM, wait_s=0.3)
    assert procs.end(pidfile, signal.SIGKILL, wait_s=5.0)
    process.wait(5)


def test_a_pid_that_another_process_has_now_is_left_alone(tmp_path: Path) -> None:
    pidfile = tmp_path / "p.pid"
    fields = Path("/proc/self/stat").read_text().rsplit(")", 1)
    numbers = fields[1].split()
    numbers[19] = str(int(numbers[19]) - 1)
    pidfile.write_text(f"{fields[0]}) {' '.join(numbers)}\n")
    assert procs.recorded(pidfile) is None
    assert procs.end(pidfile, signal.SIGKILL, wait_s=0.0)
    assert os.getpid()


def test_a_path_is_removed_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("folder", "file", "absent"):
        ledger.record("path", str(tmp_path / name))
    assert ledger.undo_all() == []
    assert ledger.undo_all() == []
    assert not (tmp_path / "folder").exists()


def _noted(pidfile: Path) -> procs.Process:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        process = procs.recorded(pidfile)
        if process is not None:
            return process
        time.sleep(0.01)
    pytest.fail("the process did not write its note within 5 s")

"""Signals, terminals, readers, limits and hooks that hang: what is around a run does not break it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    FakeFleet,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]


def lives(process: int) -> bool:
    """Is it there, and no zombie that nobody has collected?"""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_service_ends_like_ctrl_c(fleet: FakeFleet, number: int) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "delay_s": 3}]
    with fleet.start("-y") as run:
        run.wait_for_command("activate")
        run.process.send_signal(number)
        outcome = run.outcome()
    assert outcome.code == exit_codes.INTERRUPTED, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert sorted(outcome.named("lease release")) == HOSTS
    assert fleet.report()["outcome"] == "interrupted"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_of_any_encoding_shows_the_plan(fleet: FakeFleet, encoding: str) -> None:
    outcome = fleet.run("--dry", environment={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert outcome.code == 0, outcome.output
    assert "Traceback" not in outcome.output


def test_a_reader_that_left_ends_a_look_and_no_roll_out(fleet: FakeFleet) -> None:
    for deploy, code in (("tasks/status.py", 0), ("deploy.py", 0)):
        with fleet.start("-y", deploy=deploy, split=True) as run:
            assert run.process.stdout is not None
            run.process.stdout.close()
            assert run.process.stderr is not None
            said = run.process.stderr.read()
            assert run.process.wait(timeout=120) == code, said
            assert "Traceback" not in said
    assert [name for name, command in run.commands() if "sparknode activate" in command] == HOSTS


def test_a_user_without_a_name_is_a_number(fleet: FakeFleet) -> None:
    (fleet.folder / "sitecustomize.py").write_text(
        "import getpass\ndef getuser():\n    raise KeyError('getpwuid(): uid not found')\ngetpass.getuser = getuser\n"
    )
    outcome = fleet.run("-y", environment={"PYTHONPATH": f"{fleet.folder}{os.pathsep}{ROOT}"})
    assert outcome.code == 0, outcome.output
    assert f"by uid-{os.getuid()}@" in outcome.output


def test_more_hosts_than_open_files_are_refused_in_words(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, [f"spark-{number}" for number in range(60)])
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))\n"
    )
    outcome = fleet.run("-y", environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "60 hosts need 108 open files, and this process may have 90" in outcome.output
    assert outcome.commands == []


def test_a_hook_s_time_limit_holds_for_what_it_started(fleet: FakeFleet) -> None:
    fleet.data["hooks_dir"] = str(fleet.folder / "hooks")
    (fleet.folder / "hooks").mkdir()
    path = fleet.folder / "hooks" / "pre-rollout"
    path.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {fleet.folder}/child\nexit 0\n")
    path.chmod(0o755)
    began = time.monotonic()
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert time.monotonic() - began < 60
    assert not lives(int((fleet.folder / "child").read_text()))


def test_one_typo_is_told_once(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, [f"spark-{number}" for number in range(50)])
    outcome = fleet.run("-y", "--data", "profil=production")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert len(outcome.output.splitlines()) < 24
    assert "all 50 hosts: unknown setting 'profil'" in outcome.output


def test_quiet_prints_waves_failures_and_the_end(fleet: FakeFleet) -> None:
    fleet.fails("spark-2", "acceptance-short: 0.0 %")
    outcome = fleet.run("-y", environment={"SPARKFLEET_QUIET": "1"})
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    for words in ("Wave 1 of 4", "acceptance-short: 0.0 %", "stopped:"):
        assert words in outcome.output
    assert "Connected" not in outcome.output
    assert "Success" not in outcome.output

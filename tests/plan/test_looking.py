"""The tasks that only look: one answer for all hosts, no question asked, nothing changed, JSON where it is wanted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    CURRENT_TAG,
    PREFIX_TAG,
    FakeFleet,
    Outcome,
    own_command,
    probe,
    release_of,
    rolled,
    serving,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    found = FakeFleet(tmp_path, HOSTS)
    found.probes = {name: rolled(OLD, NEW) for name in HOSTS[:3]} | {"spark-4": probe()}
    return found


def document(outcome: Outcome) -> dict[str, Any]:
    """The JSON on standard output; the harness has both streams in one, and pyinfra's own lines begin with «-->»."""
    text = outcome.output
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("\n{") + 1 :])[0]
    return found


@pytest.mark.parametrize("arguments", [[], ["-y"]])
def test_status_asks_nothing_and_changes_nothing(fleet: FakeFleet, arguments: list[str]) -> None:
    (fleet.folder / "lock.json").unlink()
    outcome = fleet.run(*arguments, deploy="tasks/status.py")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    rows = [line.split()[:2] for line in outcome.output.splitlines() if line.startswith("@fake/spark-")]
    assert rows == [["@fake/spark-4", "unprovisioned"]] + [[f"@fake/{name}", "verified"] for name in HOSTS[:3]]
    assert "Detected changes" not in outcome.output
    assert outcome.output.count("run on a GB10 by its maker") == 1


def test_status_shows_the_others_when_a_host_cannot_be_reached(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["unreachable"] = True
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    assert "@fake/spark-2: it cannot be reached" in outcome.output
    assert "@fake/spark-3  verified" in outcome.output


def test_status_as_json(fleet: FakeFleet) -> None:
    found = document(fleet.run("--json", deploy="tasks/status.py"))
    assert found["@fake/spark-1"]["state"] == "verified"
    assert found["@fake/spark-1"]["fleet"]["release"]["image_tag"] == CURRENT_TAG
    assert found["@fake/spark-1"]["proven"].startswith(f"image {CURRENT_TAG}: run on a GB10 by its maker")
    assert (found["@fake/spark-4"]["state"], found["@fake/spark-4"]["proven"]) == ("unprovisioned", None)


def test_a_hundred_hosts_are_answered_soon_and_in_a_few_lines(tmp_path: Path) -> None:
    hosts = [f"spark-{number:03}" for number in range(1, 101)]
    fleet = FakeFleet(tmp_path, hosts)
    fleet.probes = {name: serving(NEW) for name in hosts} | {"spark-042": "Welcome to DGX OS"}
    began = time.monotonic()
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    rows = [line for line in outcome.output.splitlines() if "spark-" in line and "Connected" not in line]
    assert len(rows) == 3
    assert rows[0].startswith("@fake/spark-042  ")
    assert rows[1].startswith("99: @fake/spark-001 … @fake/spark-100  verified")
    assert time.monotonic() - began < 30


def test_history_tells_who_did_what(fleet: FakeFleet) -> None:
    outcome = fleet.run(deploy="tasks/history.py")
    assert outcome.code == 0, outcome.output
    rows = [line for line in outcome.output.splitlines() if "ann@desk" in line]
    assert len(rows) == 3
    assert rows[0].split()[:6] == [
        "2026-11-22T10:00:00",
        "@fake/spark-1",
        "ann@desk",
        "deploy",
        OLD.id[:8],
        NEW.id[:8],
    ]
    assert len(document(fleet.run("--json", deploy="tasks/history.py"))["@fake/spark-1"]) == 2


def test_diff_tells_what_a_deploy_changes_from_what_drifted(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"]["fleet"]["serving"]["drift"] = ["unit: it is not the text that the release holds"]
    fleet.probes["spark-3"] = rolled(NEW, OLD)
    fleet.probes["spark-3"]["fleet"]["verified"] = None
    outcome = fleet.run(deploy="tasks/diff.py")
    assert outcome.code == 0, outcome.output
    found = document(fleet.run("--json", deploy="tasks/diff.py"))
    assert found["@fake/spark-1"] == {"a deploy changes": [], "drift": []}
    assert found["@fake/spark-2"]["drift"] == ["unit: it is not the text that the release holds"]
    links = f"links: current is {OLD.id}, verified is no release"
    assert found["@fake/spark-3"]["drift"] == [links]
    assert "drafter backend: flex_attention → flash_attn" in found["@fake/spark-3"]["a deploy changes"]
    assert f"image: {CURRENT_TAG}" in found["@fake/spark-4"]["a deploy changes"]
    assert "  a deploy changes: drafter backend: flex_attention → flash_attn" in outcome.output
    assert outcome.changes() == []


def test_diff_says_why_it_does_not_know(fleet: FakeFleet) -> None:
    outcome = fleet.run("--data", "image_tag=2026-06-11-pr41073", deploy="tasks/diff.py")
    assert outcome.code == 0, outcome.output
    assert "a deploy changes: not known:" in outcome.output
    assert "did you mean '2026-06-11-pr41703'?" in outcome.output


def test_logs_name_the_host_of_each_line(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name]["logs"] = f"2026-11-23T10:00:00 engine of {name} ready"
    outcome = fleet.run(deploy="tasks/logs.py")
    assert outcome.code == 0, outcome.output
    assert "@fake/spark-3: 2026-11-23T10:00:00 engine of spark-3 ready" in outcome.output
    assert all("journalctl" in command for _, command in outcome.changes())


def test_the_doctor_judges_and_keeps_a_bundle_of_each_host(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["bundle"] = "Welcome to DGX OS"
    fleet.nodes["spark-3"]["unreachable"] = True
    outcome = fleet.run(deploy="tasks/doctor.py")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    assert outcome.changes() == []
    assert "fail: @fake/spark-3: probe: the host returned no probe: it cannot be reached" in outcome.output
    assert "@fake/spark-2: no bundle: the node's program answered 'Welcome to DGX OS'" in outcome.output
    kept = sorted((fleet.folder / "support").iterdir())
    assert [path.name.split("-", 1)[1] for path in kept] == ["@fake-spark-1.tar.gz", "@fake-spark-4.tar.gz"]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600, 0o600]
    assert f"@fake/spark-1: bundle: {kept[0]}" in outcome.output
    read = own_command("check", str(kept[0]), "--image-tag", CURRENT_TAG)
    assert read.returncode == 0, read.stderr
    assert read.stdout.endswith("fit\n")


def test_the_doctor_helps_where_a_release_cannot_be_had(fleet: FakeFleet) -> None:
    (fleet.folder / "lock.json").unlink()
    fleet.nodes["spark-2"]["bundle"] = "Welcome to DGX OS"
    found = fleet.run("--json", deploy="tasks/doctor.py")
    assert found.code == 1, found.output
    row = document(found)["@fake/spark-1"]
    assert "has no digest or commit for" in row["not judged"]
    assert Path(row["bundle"]).exists()
    assert set(document(found)["@fake/spark-2"]) == {"not judged", "no bundle"}


def test_a_pipe_gets_no_colour(fleet: FakeFleet) -> None:
    with fleet.start(deploy="tasks/status.py") as run:
        output, _ = run.process.communicate(timeout=60)
    table = output[output.index("host  ") :]
    assert "\x1b[" not in table.split("-->")[0]


def test_a_terminal_gets_a_table_that_fits(fleet: FakeFleet) -> None:
    inventory = fleet.write()
    script = (
        "import os, pty, sys\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.executable, '-m', 'tests.plan.traced', *sys.argv[1:]])))"
    )
    environment = {
        "SPARKFLEET_FAKE_FOLDER": str(fleet.folder),
        "PYINFRA_PROGRESS": "off",
        "COLUMNS": "80",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(inventory), "tasks/status.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout
    rows = [line.rstrip("\r") for line in done.stdout.split("\n") if "@fake/spark-" in line and "Connected" not in line]
    assert len(rows) == 4
    assert all(len(row) <= 80 + len("\x1b[32m\x1b[0m") for row in rows)
    assert "\x1b[32m@fake/spark-1" in done.stdout


def test_a_host_that_could_not_be_read_is_not_taken_for_a_bare_one(fleet: FakeFleet) -> None:
    fleet.probes["spark-3"] = "Segmentation fault"
    outcome = fleet.run("-y", deploy="tasks/verify.py")
    asked = [name for name, command in outcome.commands if "sparknode verify" in command]
    assert sorted(asked) == HOSTS[:3], outcome.output

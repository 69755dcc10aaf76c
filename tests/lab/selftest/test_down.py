"""After a lab that died half-way nothing is left. Run apart from the cases, which share one lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.lab.cases.conftest import lab
from tests.lab.cases.reading import ROOT, wait_for


def leftovers() -> list[str]:
    """Everything that could be the lab's, found with the machine's own tools."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    found = [line for line in links.splitlines() if ": sfl" in line or ": sfc" in line]
    found += [line for line in spaces.splitlines() if line.startswith("sflab")]
    with open("/proc/self/mounts", encoding="utf-8") as mounts:  # noqa: PTH123
        found += [line for line in mounts if "/.lab/" in line]
    processes = subprocess.run(["ps", "-eww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    found += [line for line in processes.splitlines() if "/.lab/" in line or "tests.lab.hub" in line]
    return found


def test_down_after_a_killed_driver_leaves_nothing() -> None:
    lab("down")
    assert leftovers() == []
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "up", "--nodes", "2"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for("something of the lab", lambda: any("nspawn" in line for line in leftovers()), 120)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(timeout=10)
    lab("down")
    assert leftovers() == []


def test_a_lab_of_a_checkout_that_died_is_removed_and_one_that_lives_is_not(tmp_path: Path) -> None:
    lab("down")
    elsewhere = {**os.environ, "SPARKFLEET_LAB_DIR": str(tmp_path / "elsewhere" / ".lab")}
    command = [sys.executable, "-m", "tests.lab", "up", "--nodes", "1"]
    subprocess.run(command, cwd=ROOT, env=elsewhere, check=True, timeout=120)
    try:
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert refused.returncode == 1
        assert f"a lab of {tmp_path}/elsewhere runs on this machine" in refused.stderr
        kill_all(elsewhere["SPARKFLEET_LAB_DIR"])
        said = lab("up", "--nodes", "1")
        assert f"removed what a lab that died in {tmp_path}/elsewhere had left" in said
        assert not [line for line in leftovers() if str(tmp_path) in line]
        command[3:] = ["down"]
        subprocess.run(command, cwd=ROOT, env=elsewhere, check=True, timeout=60)
        assert "spark-1   on" in lab("status")
    finally:
        lab("down")
        subprocess.run([*command[:3], "down"], cwd=ROOT, env=elsewhere, check=True, timeout=60)
    assert leftovers() == []


def kill_all(folder: str) -> None:
    """End every process that was started for the lab in this folder, and everything on its hosts, at once."""
    groups = [path for path in Path("/sys/fs/cgroup").rglob("sparkfleet-lab/**/cgroup.procs") if path.is_file()]
    ours = {int(pid) for path in groups for pid in path.read_text().split()} - {0}
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"SPARKFLEET_LAB_DIR={folder}".encode() in environment.read_bytes().split(b"\0"):
                ours.add(int(environment.parent.name))
        except OSError:
            continue
    for pid in ours:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for("their end", lambda: not any(Path(f"/proc/{pid}/root").exists() for pid in ours), 30)

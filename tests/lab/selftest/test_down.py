"""After a lab driver that died half-way, `down` leaves nothing. Run apart from the cases, which share one lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

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


pytestmark = pytest.mark.lab


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

"""A booted host for each worker (`pytest -n 3`), and the count of what they survived."""

from __future__ import annotations

import os
import tempfile
from fcntl import LOCK_EX, flock
from pathlib import Path

import pytest

from tests.lab import control
from tests.lab.cases.conftest import lab, nodes_of_the_lab
from tests.lab.cases.reading import CURRENT_TAG, OTHER_TAG, ROOT, Node, pyinfra, sparkfleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def host() -> Node:
    """This worker's own host, which serves the current tag, verified."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    with Path(tempfile.gettempdir(), "sparkfleet-lab-crash.lock").open("w") as alone:
        flock(alone, LOCK_EX)
        # Both are harmless to repeat: what is there already is left as it is.
        lab("up", "--nodes", os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        for tag in (CURRENT_TAG, OTHER_TAG):
            locked = sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"image_tag={tag}")
            assert locked.code == 0, locked.output
    node = nodes_of_the_lab()[number]
    control.clear_knobs(node.name)
    outcome = pyinfra("--limit", node.name)
    assert outcome.code == 0, outcome.output
    return node


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The last one takes the lab down: the only process of the session, or the one that minds the workers."""
    if not hasattr(session.config, "workerinput") and (ROOT / ".lab" / "state.json").exists():
        lab("down")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = {
        outcome: [report for report in terminalreporter.getreports(outcome) if "tests/lab/crash/" in report.nodeid]
        for outcome in ("passed", "failed", "error")
    }
    survived, lost = ended["passed"], ended["failed"] + ended["error"]
    if survived or lost:
        tried = len(survived) + len(lost)
        terminalreporter.write_line(f"crash matrix: {tried} points tried, {len(survived)} survived")
    for report in lost:
        terminalreporter.write_line(f"  not survived: {report.nodeid.partition('[')[2].rstrip(']')}")

"""One lab for the whole tier, taken down at its end; every module starts from hosts in a state it names itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab import control
from tests.lab.cases.reading import (
    AT_ONCE,
    CURRENT_TAG,
    OTHER_TAG,
    ROOT,
    STATE,
    Node,
    pyinfra,
    sparkfleet,
    wait_for,
)
from tests.lab.config import LAB_DIR

NODES = 4


def lab(*arguments: str, timeout_s: float = 900) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"tests.lab {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def nodes_of_the_lab() -> list[Node]:
    state = json.loads((LAB_DIR / "state.json").read_text())
    return [Node(host["name"], host["address"]) for host in state["hosts"]]


@pytest.fixture(scope="session")
def booted() -> Iterator[list[Node]]:
    lab("up", "--nodes", str(NODES))
    yield nodes_of_the_lab()
    lab("down")


@pytest.fixture(scope="session")
def locked(booted: list[Node]) -> list[Node]:
    """The lab with its lock: the current tag, the way back, and one to be tried."""
    for tag in (CURRENT_TAG, OTHER_TAG):
        outcome = sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"image_tag={tag}")
        assert outcome.code == 0, outcome.output
    return booted


@pytest.fixture
def nodes(locked: list[Node]) -> Iterator[list[Node]]:
    """Four hosts without faults; what a test set is taken back afterwards."""
    control.clear_knobs()
    yield locked
    control.clear_knobs()
    for node in locked:
        wait_for(f"{node.name} to answer", node.reachable)


@pytest.fixture
def serving(nodes: list[Node]) -> list[Node]:
    """Four hosts that serve the current tag, verified."""
    outcome = pyinfra(*AT_ONCE)
    assert outcome.code == 0, outcome.output
    return nodes


def make_bare(node: Node) -> None:
    """Take everything of the tool off a host, with plain commands."""
    node.sudo(
        "systemctl stop 'sparkfleet-*' 2>/dev/null; systemctl disable sparkfleet-serve sparkfleet-activate 2>/dev/null;"
        "docker rm -f sparkfleet-serve 2>/dev/null;"
        "rm -f /etc/systemd/system/sparkfleet-* /etc/systemd/system/*/sparkfleet-*;"
        "rm -rf /usr/local/*/sparknode;"
        f"find {STATE} -mindepth 1 -maxdepth 1 -exec rm -rf {{}} +; systemctl daemon-reload; true"
    )

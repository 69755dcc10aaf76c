"""One lab for several pytest workers (`-n 3`): each has hosts of its own, and nobody else touches those."""

from __future__ import annotations

import os
import tempfile
from fcntl import LOCK_EX, flock
from pathlib import Path

from tests.lab import control
from tests.lab.cases.conftest import lab, nodes_of_the_lab
from tests.lab.cases.reading import CURRENT_TAG, OTHER_TAG, THIRD_TAG, Node, pyinfra, sparkfleet
from tests.lab.config import LAB_DIR, SUFFIX

# The process id of the session that booted this lab, which alone takes it down.
BOOTED_BY = LAB_DIR / "booted-by"


def own_hosts(count: int) -> list[Node]:
    """Boot the lab unless another worker has, and return this worker's hosts, which serve the current tag, verified."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    with Path(tempfile.gettempdir(), f"sparkfleet-lab-workers{SUFFIX}.lock").open("w") as alone:
        flock(alone, LOCK_EX)
        if not (LAB_DIR / "state.json").exists():
            LAB_DIR.mkdir(exist_ok=True)
            BOOTED_BY.write_text(str(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()))
        # What is up already is left as it is.
        lab("up", "--nodes", str(workers * count))
        nodes = nodes_of_the_lab()[number * count :][:count]
        for tag in (CURRENT_TAG, OTHER_TAG, THIRD_TAG) if not (LAB_DIR / "fleet.lock.json").exists() else ():
            locked = sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"image_tag={tag}")
            assert locked.code == 0, locked.output
        outcome = pyinfra(*limits(nodes))
        assert outcome.code == 0, outcome.output
    return nodes


def limits(nodes: list[Node]) -> list[str]:
    return [argument for node in nodes for argument in ("--limit", node.name)]


def set_knobs(nodes: list[Node], tag: str | None = None, **knobs: object) -> None:
    for node in nodes:
        control.set_knobs(node.name, tag, **knobs)


def clear_knobs(nodes: list[Node]) -> None:
    for node in nodes:
        control.clear_knobs(node.name)


def take_down() -> None:
    """End the lab if this session booted it: one that only collects tests, or that found a lab, leaves it alone."""
    if BOOTED_BY.exists() and BOOTED_BY.read_text() == str(os.getpid()):
        lab("down")

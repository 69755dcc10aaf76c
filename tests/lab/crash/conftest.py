"""One booted host, and the count of what it survived."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import control
from tests.lab.cases.conftest import lab, nodes_of_the_lab
from tests.lab.cases.reading import CURRENT_TAG, OTHER_TAG, Node, pyinfra, sparkfleet
from tests.lab.crash.points import Point

TALLY: dict[str, list[Point]] = {"tried": [], "survived": []}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def host() -> Iterator[Node]:
    """A host that serves the current tag, verified."""
    lab("up", "--nodes", "1")
    control.clear_knobs()
    for tag in (CURRENT_TAG, OTHER_TAG):
        locked = sparkfleet("lock", "--inventory", "inventory/lab.py", "--data", f"image_tag={tag}")
        assert locked.code == 0, locked.output
    node = nodes_of_the_lab()[0]
    outcome = pyinfra("--limit", node.name)
    assert outcome.code == 0, outcome.output
    yield node
    lab("down")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tried, survived = TALLY["tried"], TALLY["survived"]
    if tried:
        terminalreporter.write_line(f"crash matrix: {len(tried)} points tried, {len(survived)} survived")
    for point in tried:
        if point not in survived:
            terminalreporter.write_line(f"  not survived: {point}")

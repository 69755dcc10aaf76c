"""Two hosts for each worker, without faults and on the current tag before every case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.cases.reading import LEASE_S, Node, pyinfra, wait_for
from tests.lab.workers import clear_knobs, limits, own_hosts, take_down


def pytest_sessionfinish() -> None:
    take_down()


@pytest.fixture(scope="session")
def hosts() -> list[Node]:
    return own_hosts(2)


@pytest.fixture
def pair(hosts: list[Node]) -> Iterator[list[Node]]:
    """Two hosts that serve the current tag, verified; the first goes first. What a test set is taken back."""
    clear_knobs(hosts)
    for node in hosts:
        wait_for(f"{node.name} to be nobody's", node.is_free, LEASE_S + 5)
    outcome = pyinfra(*limits(hosts))
    assert outcome.code == 0, outcome.output
    yield hosts
    clear_knobs(hosts)
    for node in hosts:
        wait_for(f"{node.name} to answer", node.reachable)


@pytest.fixture
def node(pair: list[Node]) -> Node:
    return pair[0]

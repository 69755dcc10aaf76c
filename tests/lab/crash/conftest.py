"""A booted host for each worker (`pytest -n 3`), and the count of what they survived."""

from __future__ import annotations

import pytest

from tests.lab.cases.reading import Node
from tests.lab.workers import own_hosts, take_down


def pytest_sessionfinish() -> None:
    take_down()


@pytest.fixture(scope="session")
def host() -> Node:
    """This worker's own host, which serves the current tag, verified."""
    return own_hosts(1)[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = {
        outcome: [report for report in terminalreporter.getreports(outcome) if "tests/lab/crash/" in report.nodeid]
        for outcome in ("passed", "failed", "error")
    }
    survived, lost = ended["passed"], ended["failed"] + ended["error"]
    if survived or lost:
        told = [dict(report.user_properties) for report in survived]
        spared = sum(1 for properties in told if not properties["struck"])
        seeds = {str(value) for report in survived + lost for name, value in report.user_properties if name == "seed"}
        slowest = max((int(str(properties["seconds"])) for properties in told), default=0)
        terminalreporter.write_line(
            f"crash matrix (SPARKFLEET_CRASH_SEED={', '.join(sorted(seeds))}): {len(survived) + len(lost)} points "
            f"tried, {len(survived)} survived (at {spared} the victim "
            f"did not run), the slowest was well after {slowest} s"
        )
    for report in lost:
        terminalreporter.write_line(f"  not survived: {report.nodeid.partition('[')[2].rstrip(']')}")

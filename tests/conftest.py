"""Which tests belong to which tier, and what a session skipped."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a machine is just now says nothing of an example.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TESTS = Path(__file__).resolve().parent
# A folder's tests carry its mark; tests elsewhere are fast, or name their own mark.
MARKS = {
    "lab": pytest.mark.lab,
    "contract": pytest.mark.contract,
    "sglang": pytest.mark.contract,
    "docs": pytest.mark.docs,
    "hub": pytest.mark.hub,
    "walk": pytest.mark.walk,
}
# tests/tiers.py names a file here: each line is a count, a tab and a reason.
SKIPPED = "SPARKFLEET_SKIPPED"


def pytest_configure(config: pytest.Config) -> None:
    # Named paths or marks are what somebody asked for; a plain `pytest` is the fast tier. Workers inherit the option.
    if not config.option.markexpr and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.option.markexpr = " and ".join(f"not {name}" for name in sorted({mark.name for mark in MARKS.values()}))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if TESTS in item.path.parents and (mark := MARKS.get(item.path.relative_to(TESTS).parts[0])):
            item.add_marker(mark)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if path := os.environ.get(SKIPPED):
        reasons = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{count}\t{reason}\n" for reason, count in sorted(reasons.items()))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return " ".join(text.removeprefix("Skipped: ").split()) or "no reason given"

"""How a run ended, as one number."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sparkfleet import ROOT, exits
from sparkfleet.fleet import FleetRun
from sparkfleet.pace import Pace
from sparkfleet.rollout import Outcome, Progress
from sparkfleet.rules import Finding

GOOD, BACK, DOWN = Outcome("committed"), Outcome("reverted", "0.0 %"), Outcome("failed", "gone")


def ended(connected: str = "ab", failed: str = "", **progress: Any) -> int | None:
    hosts: dict[str, Any] = {"a": None, "b": None}
    run = FleetRun(hosts, Pace(), waves=[["a"], ["b"]], progress=Progress(**progress))
    return exits.code_of(run, set(connected), set(failed))


@pytest.mark.parametrize(
    ("progress", "code"),
    [
        ({}, None),
        ({"connected": "a"}, exits.UNREACHABLE),
        ({"failed": "a"}, exits.HALTED_OLD),
        ({"retired": {"a": "done", "b": "done"}}, None),
        ({"retired": {"a": "done", "b": "serves"}, "failed": "b"}, exits.HALTED_MIXED),
        ({"retired": {"a": "done"}, "failed": "b"}, exits.HALTED_MIXED),
        ({"retired": {"a": "serves", "b": "serves"}, "failed": "ab"}, exits.HALTED_OLD),
        ({"retired": {"a": "done", "b": "down"}, "failed": "b"}, exits.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": GOOD, "b": GOOD}}, None),
        ({"begun": True, "outcomes": {"a": GOOD, "b": GOOD}, "connected": "a"}, exits.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": BACK}, "stopped": "a reverted"}, exits.REVERTED),
        ({"begun": True, "outcomes": {"a": GOOD, "b": BACK}, "stopped": "b reverted"}, exits.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD, "b": BACK}}, exits.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD}, "stopped": "post-wave refused"}, exits.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD}, "taken_back": {"a": GOOD}, "stopped": "worse"}, exits.REVERTED),
        ({"begun": True, "outcomes": {"a": GOOD}, "taken_back": {"a": DOWN}, "stopped": "worse"}, exits.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": DOWN}, "stopped": "a failed"}, exits.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": Outcome("no answer")}, "stopped": "?"}, exits.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": Outcome("refused")}, "stopped": "?"}, exits.HALTED_OLD),
        ({"begun": True, "lease_held": True, "stopped": "r1 works here"}, exits.LEASE_HELD),
        ({"begun": True, "stopped": "the lease was lost"}, exits.HALTED_OLD),
        ({"begun": True, "interrupted": True, "outcomes": {"a": BACK}}, exits.INTERRUPTED),
    ],
)
def test_each_end_has_its_code(progress: dict[str, Any], code: int | None) -> None:
    assert ended(**progress) == code


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        ({}, None),
        ({"a": ["gpu.visible"]}, exits.REFUSED),
        ({"a": ["host.busy"]}, exits.LEASE_HELD),
        ({"a": ["host.busy"], "b": ["disk.space"]}, exits.REFUSED),
    ],
)
def test_unfit_hosts_refuse_and_busy_ones_only_wait(failed: dict[str, list[str]], code: int | None) -> None:
    def findings(ids: list[str]) -> list[Finding]:
        return [Finding(id=one, severity="fail", found="", expected="", why="", source="", remedy=()) for one in ids]

    assert exits.of_findings({name: findings(ids) for name, ids in failed.items()}) == code


@pytest.mark.parametrize(
    ("nodes", "code"), [({"a": {}}, 0), ({"a": {}, "b": {"error": "sudo"}}, exits.UNREACHABLE), ({}, 0)]
)
def test_a_look_that_could_not_see_is_no_success(nodes: dict[str, dict[str, str]], code: int) -> None:
    assert exits.of_a_look(nodes) == code


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = {int(code): said for code, said in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)}
    assert rows == exits.MEANINGS

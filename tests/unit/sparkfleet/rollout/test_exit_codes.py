"""How a run ended, as one number."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sparkfleet import ROOT
from sparkfleet.inventory.pace import Pace
from sparkfleet.preflight.seen import Seen
from sparkfleet.release.rules import Finding
from sparkfleet.rollout import exit_codes
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.rollout.verdict import Outcome, Progress
from tests.bundles import document, seen

SEEN = seen(document())
GOOD, BACK, DOWN = Outcome("committed"), Outcome("reverted", "0.0 %"), Outcome("failed", "gone")


def ended(connected: str = "ab", failed: str = "", **progress: Any) -> int | None:
    hosts: dict[str, Any] = {"a": None, "b": None}
    run = FleetRun(hosts, Pace(), waves=[["a"], ["b"]], progress=Progress(**progress))
    return exit_codes.code_of(run, set(connected), set(failed))


@pytest.mark.parametrize(
    ("progress", "code"),
    [
        ({}, None),
        ({"connected": "a"}, exit_codes.UNREACHABLE),
        ({"failed": "a"}, exit_codes.HALTED_OLD),
        ({"retired": {"a": "done", "b": "done"}}, None),
        ({"retired": {"a": "done", "b": "serves"}, "failed": "b"}, exit_codes.HALTED_MIXED),
        ({"retired": {"a": "done"}, "failed": "b"}, exit_codes.HALTED_MIXED),
        ({"retired": {"a": "serves", "b": "serves"}, "failed": "ab"}, exit_codes.HALTED_OLD),
        ({"retired": {"a": "done", "b": "down"}, "failed": "b"}, exit_codes.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": GOOD, "b": GOOD}}, None),
        ({"begun": True, "outcomes": {"a": GOOD, "b": GOOD}, "connected": "a"}, exit_codes.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": BACK}, "stopped": "a reverted"}, exit_codes.REVERTED),
        ({"begun": True, "outcomes": {"a": GOOD, "b": BACK}, "stopped": "b reverted"}, exit_codes.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD, "b": BACK}}, exit_codes.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD}, "stopped": "post-wave refused"}, exit_codes.HALTED_MIXED),
        ({"begun": True, "outcomes": {"a": GOOD}, "taken_back": {"a": GOOD}, "stopped": "worse"}, exit_codes.REVERTED),
        ({"begun": True, "outcomes": {"a": GOOD}, "taken_back": {"a": DOWN}, "stopped": "worse"}, exit_codes.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": DOWN}, "stopped": "a failed"}, exit_codes.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": Outcome("no answer")}, "stopped": "?"}, exit_codes.HOST_DOWN),
        ({"begun": True, "outcomes": {"a": Outcome("refused")}, "stopped": "?"}, exit_codes.HALTED_OLD),
        ({"begun": True, "lease_held": True, "stopped": "r1 works here"}, exit_codes.LEASE_HELD),
        ({"begun": True, "stopped": "the lease was lost"}, exit_codes.HALTED_OLD),
        ({"begun": True, "interrupted": True, "outcomes": {"a": BACK}}, exit_codes.INTERRUPTED),
    ],
)
def test_each_end_has_its_code(progress: dict[str, Any], code: int | None) -> None:
    assert ended(**progress) == code


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        ({}, None),
        ({"a": ["gpu.visible"]}, exit_codes.REFUSED),
        ({"a": ["host.busy"]}, exit_codes.LEASE_HELD),
        ({"a": ["host.busy"], "b": ["disk.space"]}, exit_codes.REFUSED),
    ],
)
def test_unfit_hosts_refuse_and_busy_ones_only_wait(failed: dict[str, list[str]], code: int | None) -> None:
    def findings(ids: list[str]) -> list[Finding]:
        return [Finding(id=one, severity="fail", found="", expected="", why="", source="", remedy=()) for one in ids]

    assert exit_codes.of_findings({name: findings(ids) for name, ids in failed.items()}) == code


@pytest.mark.parametrize(
    ("nodes", "code"),
    [({"a": SEEN}, 0), ({"a": SEEN, "b": Seen(error="sudo")}, exit_codes.UNREACHABLE), ({"a": Seen()}, 3), ({}, 0)],
)
def test_a_look_that_could_not_see_is_no_success(nodes: dict[str, Seen], code: int) -> None:
    assert exit_codes.of_a_look(nodes) == code


def test_the_documentation_has_the_same_table() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    rows = {int(code): said for code, said in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)}
    assert rows == exit_codes.MEANINGS

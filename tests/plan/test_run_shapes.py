"""Runs of every shape: random fleets, paces, failures at every place, pyinfra's options and answers to its questions.

Whatever happens: no host outside the run is touched, never more are out than allowed, no wave follows a bad one, every
lease is given back, and exit code 0 means that every host of the run ended as asked.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sparkfleet.rollout.waves import share_of
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, Outcome, probe, release_of, rolled, serving

EXAMPLES = int(os.environ.get("SPARKFLEET_EXAMPLES", "10"))
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)
# How a host's activations end, one step each, and whether it serves after the first: None leaves it as it was.
STEPS: dict[str, tuple[list[dict[str, Any]], bool | None]] = {
    "reverted": ([{"state": "reverted", "error": "ready: never"}], None),
    "failed": ([{"state": "failed", "error": "ready: never"}], False),
    "refused": ([{"refused": "sparknode activate: release x is not staged here"}], None),
    "raises": ([{"raises": "unexpected"}], None),
    "lost and reverted": ([{"lost": True, "state": "reverted", "error": "ready: never"}], None),
    "lost": ([{"lost": True}], None),
}
SCRIPTS: dict[str, dict[str, Any]] = {
    "silent": {"silent": True},
    "leased": {"lease": "rollout abc of ann@desk works on this host since 10:00; wait for it"},
    "disk full": {"lease": "sparknode lease: [Errno 28] No space left on device"},
    "stage fails": {"stage": "sparknode stage: the image could not be pulled"},
    "unreachable": {"unreachable": True},
}
UNFIT = {"no GPU", "garbage"}
TROUBLES = [*STEPS, *SCRIPTS, *sorted(UNFIT)]
OPTIONS = [[], [], [], [], ["--fail-percent", "50"], ["--retry", "2"], ["--serial"], ["--parallel", "1"], ["--json"]]


PROBES: dict[str, Callable[[], Any]] = {
    "old": lambda: serving(OLD),
    "new": lambda: rolled(OLD, NEW),
    "bare": probe,
    "down": lambda: _down(serving(OLD)),
}


@dataclass
class Shape:
    states: list[str]
    canaries: int
    data: dict[str, Any]
    troubles: dict[int, str]
    task: str
    options: list[str]
    chosen: list[str] = field(default_factory=list)
    answers: str | None = None

    @property
    def hosts(self) -> list[str]:
        return [f"spark-{number}" for number in range(len(self.states))]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    states = draw(st.lists(st.sampled_from(["old", "old", "old", "new", "bare", "down"]), min_size=1, max_size=6))
    numbers = st.integers(0, len(states) - 1)
    shape = Shape(
        states,
        draw(st.integers(0, min(2, len(states)))),
        {
            "batch_size": draw(st.lists(st.sampled_from([1, 2, 3, "50%"]), min_size=1, max_size=3)),
            "max_unavailable": draw(st.sampled_from([1, 2, 3, "25%", "50%"])),
            "min_serving": draw(st.sampled_from([0, 0, 1, 2])),
            "max_failures": draw(st.sampled_from([0, 0, 1])),
            "on_failure": draw(st.sampled_from(["halt", "revert_all"])),
            "unhealthy_first": draw(st.booleans()),
        },
        draw(st.dictionaries(numbers, st.sampled_from(TROUBLES), max_size=2)),
        draw(st.sampled_from(["deploy.py", "deploy.py", "deploy.py", "tasks/rollback.py", "tasks/restart.py"])),
        draw(st.sampled_from(OPTIONS)),
    )
    for option in draw(st.sampled_from([(), (), ("--limit",), ("--exclude",)])):
        shape.chosen = [option, f"@fake/{shape.hosts[draw(numbers)]}"]
    shape.answers = draw(st.sampled_from([None, None, "\n\n\n\n\n", "no\n", ""]))
    return shape


def run(shape: Shape, folder: Path) -> tuple[FakeFleet, Outcome]:
    fleet = FakeFleet(folder, shape.hosts, shape.canaries)
    fleet.data.update(shape.data)
    for number, state in enumerate(shape.states):
        name, trouble = f"spark-{number}", shape.troubles.get(number, "")
        fleet.probes[name] = PROBES[state]()
        if trouble == "no GPU":
            fleet.probes[name] = {**fleet.probes[name], "gpu": {"devices": [], "error": "No devices were found"}}
        if trouble == "garbage":
            fleet.probes[name] = "Welcome to DGX OS"
        # The time that an activation takes lets those of a wave overlap.
        steps = [{**step, "delay_s": 0.05} for step in STEPS.get(trouble, ([], None))[0]]
        fleet.nodes[name] = {"activate": [*steps, *[{"state": "committed", "delay_s": 0.05}] * 4]}
        fleet.nodes[name].update(SCRIPTS.get(trouble, {}))
        if trouble == "lost":
            fleet.nodes[name]["activate"] = [{"lost": True}] * 9
    arguments = [*shape.options, *shape.chosen, *(["-y"] if shape.answers is None else [])]
    return fleet, fleet.run(*arguments, deploy=shape.task, answers=shape.answers)


def _down(found: dict[str, Any]) -> dict[str, Any]:
    found["fleet"]["serving"] = {"release": None, "unit": "failed", "drift": []}
    return found


def members(shape: Shape) -> list[str]:
    """The hosts of the run."""
    if not shape.chosen:
        return shape.hosts
    option, name = shape.chosen[0], shape.chosen[1].removeprefix("@fake/")
    return [host for host in shape.hosts if (host == name) == (option == "--limit")]


def check_capacity(shape: Shape, outcome: Outcome) -> None:
    """Walk through the activations: whoever serves is only taken out when that leaves enough."""
    hosts = members(shape)
    allowed = max(1, share_of(shape.data["max_unavailable"], len(hosts)))
    up = {host: shape.states[int(host[6:])] in ("old", "new") for host in hosts}
    left = {
        host: [STEPS[trouble][1]] if (trouble := shape.troubles.get(int(host[6:]))) in STEPS else [] for host in hosts
    }
    moments = [(began, 1, host) for host, _, began, _ in outcome.spans]
    moments += [(ended, 0, host) for host, _, _, ended in outcome.spans]
    out: set[str] = set()
    for _, begins, host in sorted(moments):
        if begins:
            out.add(host)
            gone = [name for name in hosts if not up[name] or name in out]
            if up[host]:
                assert len(gone) <= allowed, f"{gone} were out at the same time"
                assert len(hosts) - len(gone) >= shape.data["min_serving"]
        else:
            out.discard(host)
            after = left[host].pop(0) if left[host] else True
            up[host] = up[host] if after is None else after


def check_waves(shape: Shape, fleet: FakeFleet, outcome: Outcome) -> None:
    """No wave begins after one in which more failed than may."""
    reports = list((fleet.folder / "runs").glob("*.json"))
    if not reports:
        assert outcome.spans == []
        return
    (path,) = reports
    report = json.loads(path.read_text())
    waves = [[host.removeprefix("@fake/") for host in wave["hosts"]] for wave in report["waves"]]
    wanted = {name.removeprefix("@fake/"): host["release"] for name, host in report["hosts"].items()}
    went = {host for host, release, *_ in outcome.spans if release == wanted[host]}
    bad = 0
    for number, wave in enumerate(waves):
        if bad > shape.data["max_failures"]:
            assert not went.intersection(wave), f"wave {number + 1} began after {bad} failures"
        bad += sum(shape.troubles.get(int(host[6:])) in STEPS or "silent" in _trouble(shape, host) for host in wave)


def _trouble(shape: Shape, host: str) -> str:
    return shape.troubles.get(int(host[6:]), "")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(shapes())
def test_a_run_of_any_shape_keeps_its_promises(shape: Shape) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fleet, outcome = run(shape, Path(folder))
        event(f"exit code {outcome.code}")
        hosts = members(shape)
        touched = {name for name, _ in outcome.commands}
        assert touched <= set(hosts), outcome.output
        if "--fail-percent" in shape.options or "--retry" in shape.options or "--serial" in shape.options:
            assert (outcome.code, outcome.commands) == (2, []), outcome.output
        if shape.answers in ("no\n", "") and "--json" not in shape.options:
            assert not outcome.spans
        check_capacity(shape, outcome)
        check_waves(shape, fleet, outcome)
        taken = [name for name in outcome.named("lease take") if "lease" not in fleet.nodes[name]]
        assert sorted(set(taken)) == sorted(set(outcome.named("lease release"))), outcome.output
        changes = [name for name, command in outcome.commands if "sparknode activate" in command or "stage" in command]
        troubled = [name for name in hosts if _trouble(shape, name) in (*UNFIT, "unreachable")]
        if troubled and shape.task == "deploy.py":
            assert not changes, outcome.output
        if outcome.code == 0 and shape.task == "deploy.py" and "--json" not in shape.options:
            last = {host: release for host, release, *_ in outcome.spans}
            for host in hosts:
                was_there = shape.states[int(host[6:])] == "new" and host not in last
                assert was_there or last.get(host) == NEW.id, outcome.output
                assert _trouble(shape, host) not in STEPS or was_there, outcome.output
        if "raises" not in shape.troubles.values():
            assert "Traceback" not in outcome.output

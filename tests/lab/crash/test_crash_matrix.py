"""The crash matrix, on a booted host for each worker. A seeded sample by default; SPARKFLEET_CRASH=all is every point.

SPARKFLEET_CRASH=24 tries so many, SPARKFLEET_CRASH_SEED=7 those of a seed, SPARKFLEET_CRASH=40:80 a part of all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.lab import control, faults
from tests.lab.cases.reading import CURRENT_TAG, LEASE_S, OTHER_TAG, Node, pyinfra, shown, start_pyinfra, wait_for
from tests.lab.crash.points import MOMENTS, Point, chosen, drawn_seed, has_come
from tests.lab.crash.strikes import Tail, Watched, strike

# Another sample each run; the report names its seed.
SEED = drawn_seed()
POINTS = chosen(os.environ.get("SPARKFLEET_CRASH", "16"), SEED)
# A boot, the load of an engine, the gates, and the waiting of each; the lab's deadlines add up to no more.
BOUND_S = 90.0
LINE_S = 60.0
# How long the disk stays full: longer than a load and the way back from it.
FULL_S = 20.0
_numbers = iter(range(10_000))
_serving: list[Move] = []


@dataclass
class Move:
    """One release for the host, on the image tag that does not serve now; no two are the same."""

    node: Node
    tag: str
    data: list[str] = field(init=False)
    release: str = field(init=False)

    def __post_init__(self) -> None:
        number = next(_numbers)
        sizes = {"max_num_seqs": 8 + number % 48, "max_num_batched_tokens": 32768 - 1024 * (number // 48)}
        pairs = [f"image_tag={self.tag}", f"overrides={json.dumps(sizes)}"]
        self.data = [argument for pair in pairs for argument in ("--data", pair)]
        self.release = str(shown(self.node.name, *pairs)["id"])

    @property
    def arguments(self) -> list[str]:
        return [*self.data, "--limit", self.node.name]


@pytest.fixture(params=POINTS, ids=str)
def point(request: pytest.FixtureRequest, host: Node) -> Iterator[Point]:
    found: Point = request.param
    control.clear_knobs(host.name)
    yield found
    faults.free_disk(host.name)
    control.clear_knobs(host.name)
    # Shown where the point was not survived.
    for record in host.journal()[-40:]:
        print({key: str(record[key])[:200] for key in ("t", "state", "note", "error", "blame") if key in record})
    print(host.sudo("journalctl --no-pager -n 60 -u docker -u 'sparkfleet-*'"))


def test_the_host_comes_through_by_itself(
    host: Node, point: Point, record_property: Callable[[str, object], None]
) -> None:
    record_property("seed", SEED)
    seen = Watched(host.name)
    torn = seen.torn_lines()
    before = settled(host, seen)
    move = Move(host, OTHER_TAG if before.tag == CURRENT_TAG else CURRENT_TAG)
    if point.way == "revert":
        control.set_knobs(host.name, move.tag, acceptance=0.0)

    tail = Tail(seen, move.release)
    run = start_pyinfra(*move.arguments)
    try:
        happened = cut_in(host, tail, point, run)
        if point.victim == "host":
            faults.power_on(host.name)
        if point.victim == "disk":
            time.sleep(FULL_S)
            faults.free_disk(host.name)
        started = time.monotonic()
        wait_for(f"{point}: a verified release", lambda: is_well(host, seen, {before.release, move.release}), BOUND_S)
        record_property("seconds", round(time.monotonic() - started))
        record_property("struck", happened)
        # What is left of the deploy gives its lease back; a killed one's ends by itself.
        run.communicate(timeout=BOUND_S)
    finally:
        end(run)
    # The host was another point's before, which may have torn a line of its own.
    assert seen.torn_lines() <= torn or point.victim in ("host", "disk")

    wait_for("the end of the lease", host.is_free, LEASE_S + 5.0)

    control.clear_knobs(host.name)
    after = before if point.way == "revert" else move
    converge(host, after)
    _serving.append(after)


def settled(node: Node, seen: Watched) -> Move:
    """The release that the host serves, verified; a new one when an earlier point left something else."""
    if _serving and is_well(node, seen, {_serving[-1].release}):
        return _serving[-1]
    move = Move(node, CURRENT_TAG)
    converge(node, move)
    _serving.append(move)
    return move


def cut_in(node: Node, tail: Tail, point: Point, run: subprocess.Popen[str]) -> bool:
    """Wait for the line, then strike; False when nobody was there to be killed."""
    until = time.monotonic() + LINE_S
    while not has_come(point, tail.read()):
        if run.poll() is not None and not has_come(point, tail.read()):
            output = run.communicate()[0]
            raise AssertionError(f"the deploy ended with {run.returncode} before the line came: {output[-2000:]}")
        assert time.monotonic() < until, f"the line {point.line!r} did not come within {LINE_S:.0f} s"
        time.sleep(0.005)
    time.sleep(MOMENTS[point.moment])
    if point.victim == "controller":
        os.killpg(run.pid, signal.SIGKILL)
        return True
    if point.victim == "docker":
        # Others stopped it a moment ago, and systemd counts; that is the lab's doing and not what is tried here.
        again = "systemctl reset-failed docker.socket docker; systemctl start docker.socket docker"
        node.sudo(f"systemctl stop docker.socket docker; sleep 3; {again}")
        return True
    return strike(Watched(node.name), point.victim)


def is_well(node: Node, seen: Watched, allowed: set[str]) -> bool:
    """Does the host serve what is current and verified, with nothing under way?"""
    current, verified = seen.link("current"), seen.link("verified")
    if current is None or current != verified or (allowed and current not in allowed):
        return False
    if not seen.is_at_rest():
        return False
    try:
        container = node.container()
        if container is None or not node.serves():
            return False
        wanted = node.release("current")["container"]
    except (AssertionError, subprocess.TimeoutExpired, ValueError):
        return False
    return [container["Path"], *container["Args"]] == [wanted["entrypoint"], *wanted["args"]]


def converge(node: Node, move: Move) -> None:
    """The next deploy brings the host to a good release."""
    outcome = pyinfra(*move.arguments)
    assert outcome.code == 0, outcome.output
    assert node.link("current") == node.link("verified") == move.release
    assert node.serves()


def end(run: subprocess.Popen[str]) -> None:
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)

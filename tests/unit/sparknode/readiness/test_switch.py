"""Readiness is turned on and off by one command each, and a host that cannot answer says why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.http import Answer, Request
from sparknode.base.paths import READY_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host, System
from sparknode.errors import Failed, Refused
from sparknode.host import node_status
from sparknode.readiness import switch
from sparknode.state.status import Readiness
from tests.unit.sparknode.acting import OLD, activate
from tests.unit.sparknode.world import World

ADDRESSES = [{"addr_info": [{"local": "127.0.0.1"}]}, {"addr_info": [{"local": "192.168.100.7"}]}, {}]


class Units(System):
    """A machine with two addresses, whose systemctl enables a unit by its link; time passes in sleep alone.

    `silent_s` is how long a program that was started gives no answer.
    """

    def __init__(self, paths: Paths, silent_s: float) -> None:
        self.paths, self.fails, self.orders = paths, dict[str, str](), list[str]()
        self.clock, self.silent_s, self.asked = 0.0, silent_s, list[Request]()
        self.says = Answer(503, b"not serving: the serving unit is activating\n")

    def http(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.says if self.clock >= self.silent_s else Answer(None, refused=True, error="connection refused")

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def run(self, argv: Sequence[str], timeout: float) -> Completed:  # noqa: ARG002
        if argv[0] == "ip":
            return Completed(tuple(argv), 0, json.dumps(ADDRESSES))
        assert argv[-1] == READY_UNIT
        verb = argv[1]
        self.orders.append(verb)
        if verb in self.fails:
            return Completed(tuple(argv), 1, "", self.fails[verb])
        if verb == "enable":
            self.paths.ready_enabled.parent.mkdir(parents=True, exist_ok=True)
            self.paths.ready_enabled.unlink(missing_ok=True)
            self.paths.ready_enabled.symlink_to(f"/etc/systemd/system/{READY_UNIT}")
        if verb == "disable":
            self.paths.ready_enabled.unlink(missing_ok=True)
        return Completed(tuple(argv), 0)


def units(root: Path, silent_s: float = 1.0) -> tuple[Host, Units]:
    system = Units(Paths(root), silent_s)
    system.paths.data.mkdir(parents=True, exist_ok=True)
    return Host(system.paths, system), system


def test_on_and_off_are_each_told_in_the_status(tmp_path: Path) -> None:
    host, system = units(tmp_path)
    lines: list[str] = []
    assert node_status.readiness(host.paths) is None
    assert switch.turn_on(host, 9480, "192.168.100.0/24", 2.0, lines.append) == 0
    assert node_status.readiness(host.paths) == Readiness(9480, "192.168.100.0/24", 2.0)
    # A change takes effect at once.
    assert switch.turn_on(host, 9481, None, 2.0, lines.append) == 0
    assert node_status.readiness(host.paths) == Readiness(9481, None, 2.0)
    assert switch.turn_off(host, lines.append) == 0
    assert node_status.readiness(host.paths) is None
    assert system.orders == ["enable", "start", "enable", "start", "disable"]
    assert [(one.host, one.port) for one in system.asked] == [("192.168.100.7", 9480)] * 3 + [("127.0.0.1", 9481)]
    assert lines == ["readiness is answered on port 9480", "readiness is answered on port 9481", "readiness is off"]


@pytest.mark.parametrize(
    ("network", "fails", "says"),
    [
        ("10.0.0.0/8", {}, "no address of this host is in 10.0.0.0/8 (it has 127.0.0.1, 192.168.100.7)"),
        (None, {"start": "the unit is masked"}, "systemctl status sparkfleet-ready.service"),
        (None, {"enable": "Read-only file system"}, "Read-only file system"),
    ],
)
def test_what_stands_in_the_way_is_named(tmp_path: Path, network: str | None, fails: dict[str, str], says: str) -> None:
    host, system = units(tmp_path)
    system.fails = fails
    with pytest.raises(Failed) as caught:
        switch.turn_on(host, 9480, network, 5.0, lambda _: None)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("silent_s", "says", "found"),
    [
        (1e9, Answer(503), "connection refused"),
        (0.0, Answer(404, b"<h1>Not Found</h1>"), "HTTP 404 from another program"),
        (0.0, Answer(200, b""), "HTTP 200 from another program"),
        (0.0, Answer(401, b"ready: "), "HTTP 401 from another program"),
    ],
)
def test_a_port_on_which_something_else_answers_is_not_on(
    tmp_path: Path, silent_s: float, says: Answer, found: str
) -> None:
    host, system = units(tmp_path, silent_s)
    system.says = says
    with pytest.raises(Failed, match=f"port 9480 gives {found}; look at `systemctl status"):
        switch.turn_on(host, 9480, None, 5.0, lambda _: None)
    assert system.clock >= switch.ANSWER_S


@pytest.mark.parametrize(
    ("active", "on"), [("active", True), ("activating", False), ("deactivating", False), ("failed", False), ("", False)]
)
def test_the_status_tells_what_answers_and_not_what_was_ordered(serving: World, active: str, on: bool) -> None:
    serving.paths.readiness.write_text('{"port": 9480}')
    serving.paths.ready_enabled.symlink_to("x")
    serving.other_units = f"\nNames={READY_UNIT}\nLoadState=loaded\nActiveState={active}\n" if active else ""
    found = node_status.report(serving.host)["readiness"]
    assert found == ({"port": 9480, "network": None, "notice_s": 5.0} if on else None)


def test_a_unit_that_does_not_end_is_not_off(tmp_path: Path) -> None:
    host, system = units(tmp_path)
    switch.turn_on(host, 9480, None, 5.0, lambda _: None)
    system.fails["disable"] = "timed out"
    with pytest.raises(Failed, match="timed out"):
        switch.turn_off(host, lambda _: None)
    assert node_status.readiness(host.paths) is not None


def test_the_engine_s_own_port_is_refused(serving: World) -> None:
    with pytest.raises(Refused, match="readiness_port another one"):
        switch.turn_on(serving.host, OLD["serve"]["port"], None, 5.0, lambda _: None)
    assert not serving.paths.readiness.exists()


@pytest.mark.parametrize("document", ["{", '{"port": "x"}', '{"port": 0}', "[]"])
def test_what_cannot_be_read_counts_as_off(tmp_path: Path, document: str) -> None:
    host, _ = units(tmp_path)
    switch.turn_on(host, 9480, None, 5.0, lambda _: None)
    host.paths.readiness.write_text(document)
    assert node_status.readiness(host.paths) is None


@pytest.mark.parametrize(("notice_s", "requests", "drain_rate"), [(7.0, 0.0, 1.0), (7.0, 10.0, 1.0)])
def test_draining_waits_until_a_balancer_has_noticed(
    serving: World, notice_s: float, requests: float, drain_rate: float
) -> None:
    serving.paths.readiness.write_text(json.dumps({"port": 9480, "network": None, "notice_s": notice_s}))
    serving.paths.ready_enabled.parent.mkdir(parents=True, exist_ok=True)
    serving.paths.ready_enabled.symlink_to("x")
    serving.requests_running, serving.drain_rate = requests, drain_rate
    notes = [record["note"] for record in activate(serving).records if record["state"] == "draining"]
    assert notes[-1] == f"no request left after {max(notice_s, requests + 1):.0f} s"


def test_without_it_an_idle_engine_is_not_waited_for(serving: World) -> None:
    notes: list[Any] = [record["note"] for record in activate(serving).records if record["state"] == "draining"]
    assert notes[-1] == "no request left after 0 s"

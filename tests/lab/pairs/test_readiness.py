"""What a load balancer hears of a host that is rolled, restarted by hand, cut off from power, or shut down."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab import faults
from tests.lab.cases.reading import THIRD_TAG, Node, pyinfra, wait_for

PORT, NOTICE_S = 9480, 2
TAG = ("--data", f"image_tag={THIRD_TAG}")
ON = ("--data", f"readiness_port={PORT}", "--data", f"readiness_notice_s={NOTICE_S}")


def heard(node: Node, port: int = PORT) -> int | None:
    """The status that a balancer gets; None where nobody answers, which it takes for down."""
    try:
        with urllib.request.urlopen(f"http://{node.address}:{port}/ready", timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        return answer.code
    except OSError:
        return None


@dataclass
class Balancer:
    """Asks twice a second, and remembers each change with its time."""

    node: Node
    changes: list[tuple[float, int | None]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        while not self._ended.is_set():
            status = heard(self.node)
            if not self.changes or self.changes[-1][1] != status:
                self.changes.append((time.time(), status))
            self._ended.wait(0.5)

    @property
    def statuses(self) -> list[int | None]:
        return [status for _, status in self.changes]

    def since(self, status: int) -> float:
        return next(at for at, found in self.changes if found == status)

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self.ask)
        thread.start()
        try:
            wait_for("its first answer", lambda: self.changes)
            yield
            self.settle()
        finally:
            self._ended.set()
            thread.join(10)

    def settle(self) -> None:
        wait_for(f"{self.node.name} to be ready at last", lambda: self.changes[-1][1] == 200, 120)


def engine(node: Node) -> tuple[str, str]:
    """Which container runs, and since when."""
    found = node.container()
    assert found
    return str(found["Id"]), str(found["State"]["StartedAt"])


def stopped_at(node: Node) -> float:
    """When the newest activation began to stop the engine, by the host's clock, which is this machine's."""
    line = next(record for record in reversed(node.journal()) if record["state"] == "stopping")
    return float(node.ssh(f"date -d {line['t']} +%s.%N"))


def test_a_balancer_hears_of_everything_before_a_request_is_lost(pair: list[Node]) -> None:
    node = pair[0]
    before = engine(node)
    assert heard(node) is None
    outcome = pyinfra(*ON, "--limit", node.name)
    assert outcome.code == 0, outcome.output
    assert heard(node) == 200
    assert engine(node) == before, "the engine is none of its business"
    files = node.files()
    again = pyinfra(*ON, "--limit", node.name)
    assert again.code == 0, again.output
    assert node.files() == files

    # A roll: nothing new from before the engine stops until the release is proven.
    balancer = Balancer(node)
    with balancer.watching():
        outcome = pyinfra(*ON, *TAG, "--limit", node.name)
        assert outcome.code == 0, outcome.output
    assert balancer.statuses == [200, 404, 503, 200]
    assert stopped_at(node) - balancer.since(404) >= NOTICE_S - 1

    # Whoever kills it gets it back, and a power cut too, without a controller.
    node.sudo("systemctl kill --signal=KILL sparkfleet-ready")
    wait_for("readiness after a kill", lambda: heard(node) == 200, 30)
    faults.power_cut(node.name)
    wait_for("readiness after a power cut", lambda: heard(node) == 200, 120)
    assert json.loads(node.sudo("sparknode status"))["readiness"]["port"] == PORT

    # Other settings are taken up without a word of draining: all hosts get them at once.
    process = node.sudo("systemctl show sparkfleet-ready --property=MainPID --value")
    balancer = Balancer(node)
    with balancer.watching():
        changed = pyinfra(*ON[:2], "--data", f"readiness_notice_s={NOTICE_S + 1}", *TAG, "--limit", node.name)
        assert changed.code == 0, changed.output
        assert json.loads(node.sudo("sparknode status"))["readiness"]["notice_s"] == NOTICE_S + 1
    assert 404 not in balancer.statuses
    assert 503 not in balancer.statuses
    assert node.sudo("systemctl show sparkfleet-ready --property=MainPID --value") == process
    confined = node.sudo("systemctl show sparkfleet-ready --property=ProtectSystem,CapabilityBoundingSet")
    assert sorted(confined.split()) == ["CapabilityBoundingSet=", "ProtectSystem=strict"]

    # A host that goes down says so first.
    balancer = Balancer(node)
    with balancer.watching():
        node.sudo("systemctl reboot", check=False)
        wait_for("the host to be gone", lambda: None in balancer.statuses, 60)
    assert balancer.statuses.index(404) < balancer.statuses.index(None)
    assert 503 not in balancer.statuses[: balancer.statuses.index(None)]

    # Stopped by hand, an engine serves nobody.
    wait_for("the host", node.reachable, 60)
    node.sudo("systemctl stop sparkfleet-serve")
    assert heard(node) == 503
    node.sudo("systemctl start sparkfleet-serve")
    wait_for("readiness after a start by hand", lambda: heard(node) == 200, 90)

    # A port that another program has is no success, nor is it one the next time.
    node.sudo("systemd-run --unit=squatter python3 -m http.server 9481")
    try:
        for _ in range(2):
            taken = pyinfra("--data", "readiness_port=9481", *TAG, "--limit", node.name)
            assert taken.code != 0, taken.output
            assert "sparkfleet-ready.service can't be turned on: " in taken.output
    finally:
        node.sudo("systemctl stop squatter")
    wait_for("readiness on the port that is free now", lambda: heard(node, 9481) == 200, 30)

    off = pyinfra(*TAG, "--limit", node.name)
    assert off.code == 0, off.output
    assert heard(node) is None

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
ON = ("--data", f"readiness_port={PORT}", "--data", f"readiness_notice_s={NOTICE_S}")


def heard(node: Node) -> int | None:
    """The status that a balancer gets; None where nobody answers, which it takes for down."""
    try:
        with urllib.request.urlopen(f"http://{node.address}:{PORT}/ready", timeout=2) as answer:
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
        outcome = pyinfra(*ON, "--data", f"image_tag={THIRD_TAG}", "--limit", node.name)
        assert outcome.code == 0, outcome.output
    assert balancer.statuses == [200, 404, 503, 200]
    assert stopped_at(node) - balancer.since(404) >= NOTICE_S - 1

    # Whoever kills it gets it back, and a power cut too, without a controller.
    node.sudo("systemctl kill --signal=KILL sparkfleet-ready")
    wait_for("readiness after a kill", lambda: heard(node) == 200, 30)
    faults.power_cut(node.name)
    wait_for("readiness after a power cut", lambda: heard(node) == 200, 120)
    assert json.loads(node.sudo("sparknode status"))["readiness"]["port"] == PORT

    # Stopped by hand, the engine finishes what it has, and a host that goes down says so first.
    balancer = Balancer(node)
    with balancer.watching():
        node.sudo("systemctl restart sparkfleet-ready")
    assert 404 in balancer.statuses
    node.sudo("systemctl stop sparkfleet-serve")
    assert heard(node) == 503
    node.sudo("systemctl start sparkfleet-serve")
    wait_for("readiness after a start by hand", lambda: heard(node) == 200, 90)

    off = pyinfra("--data", f"image_tag={THIRD_TAG}", "--limit", node.name)
    assert off.code == 0, off.output
    assert heard(node) is None

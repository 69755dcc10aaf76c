"""What a balancer hears over HTTP, from a pretended node behind a real server."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from sparkfleet.node.nodeprogram import program
from sparknode.activate import rotation
from sparknode.base.shape import Node
from sparknode.readiness import server
from sparknode.readiness.answer import DRAINING, NOT_SERVING, READY
from sparknode.readiness.server import CLIENTS, Server, Watcher
from sparknode.state.releases import rotation_of
from tests.lab.cases.reading import wait_for
from tests.unit.sparknode.acting import NEW, OLD, activate
from tests.unit.sparknode.world import Engine, World


@pytest.fixture
def answering(serving: World) -> Iterator[tuple[Server, Watcher]]:
    """A server on loopback that looks anew for each request."""
    serving.on_sleep = None
    watcher = Watcher(serving.host)
    with Server("127.0.0.1", 0, watcher) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made, watcher
        made.shutdown()
        thread.join(5)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRESH_S", 0.0)


def ask(served: Server, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_each_path_has_its_answer(serving: World, answering: tuple[Server, Watcher]) -> None:
    served, _ = answering
    serving.clock += 60
    assert ask(served, "/ready") == (READY, f"ready: release {OLD['id']} is verified\n")
    assert ask(served, "/ready?from=lb", "HEAD") == (READY, "")
    # 404 would be taken for a host that drains.
    assert ask(served, "/health")[0] == 400
    assert ask(served, "/ready/../journal")[0] == 400
    serving.paths.metrics.parent.mkdir(parents=True, exist_ok=True)
    serving.paths.metrics.write_text("sparkfleet_watch_ok 1\n")
    status, body = ask(served, "/metrics")
    assert status == 200
    assert body.splitlines() == [
        "sparkfleet_watch_ok 1",
        "# TYPE sparkfleet_ready gauge",
        "sparkfleet_ready 1",
        "# TYPE sparkfleet_draining gauge",
        "sparkfleet_draining 0",
    ]


def test_what_cannot_be_read_is_no(serving: World, answering: tuple[Server, Watcher]) -> None:
    served, _ = answering
    serving.clock += 60
    serving.paths.order.write_text("{")
    status, body = ask(served, "/ready")
    assert status == NOT_SERVING
    assert "can't be told" in body
    assert ask(served, "/metrics")[1].splitlines()[1] == "sparkfleet_ready 0"


def test_a_program_that_is_told_to_end_drains_first(serving: World, answering: tuple[Server, Watcher]) -> None:
    served, watcher = answering
    serving.clock += 60
    assert ask(served, "/ready")[0] == READY
    watcher.leaving = "this program is being stopped"
    assert ask(served, "/ready") == (DRAINING, "draining: this program is being stopped\n")
    # What was not ready before does not become so by that.
    serving.running = None
    assert ask(served, "/ready")[0] == NOT_SERVING


def test_clients_that_say_nothing_keep_nobody_out_for_long(
    monkeypatch: pytest.MonkeyPatch, serving: World, answering: tuple[Server, Watcher]
) -> None:
    served, _ = answering
    serving.clock += 60
    monkeypatch.setattr(server.Handler, "timeout", 2.0)
    with ExitStack() as stack:
        for _number in range(CLIENTS):
            stack.enter_context(socket.create_connection(("127.0.0.1", served.server_port), timeout=5))
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(served, "/ready")
        with socket.create_connection(("127.0.0.1", served.server_port), timeout=5) as last:
            # It is hung up on, as one too many; by then the silent ones may be gone as well.
            last.recv(1)
    deadline = threading.Event()
    for _number in range(100):
        try:
            assert ask(served, "/ready")[0] == READY
            break
        except (http.client.HTTPException, OSError):
            deadline.wait(0.05)
    else:
        pytest.fail("nobody is let in any more")


def test_a_thread_that_cannot_be_started_costs_no_place(
    monkeypatch: pytest.MonkeyPatch, serving: World, answering: tuple[Server, Watcher]
) -> None:
    served, _ = answering
    serving.clock += 60
    with monkeypatch.context() as patch:
        patch.setattr(ThreadingHTTPServer, "process_request", no_thread)
        patch.setattr(Server, "handle_error", lambda *_: None)
        for _number in range(CLIENTS + 1):
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(served, "/ready")
    assert ask(served, "/ready")[0] == READY


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


class Resident:
    """The real program as its unit starts it, below a root of its own."""

    def __init__(self, world: World) -> None:
        self.world, self.ports = world, [free_port(), free_port()]
        program_of = world.paths.program
        program_of.parent.mkdir(parents=True)
        program_of.write_bytes(program())
        program_of.chmod(0o755)
        world.paths.ready_enabled.symlink_to("x")
        self.set(self.ports[0])
        self.process = subprocess.Popen([program_of, "--root", str(world.root), "readiness", "serve"])

    def set(self, port: int) -> None:
        new = self.world.paths.readiness.with_suffix(".new")
        new.write_text(json.dumps({"port": port, "network": None, "notice_s": 1.0}))
        new.rename(self.world.paths.readiness)

    def answers(self, port: int) -> str | None:
        """What it calls itself in its answer, where there is one."""
        assert self.process.poll() is None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            assert answer.status == NOT_SERVING
            return str(answer.headers["Server"]).strip()
        except (http.client.HTTPException, OSError):
            return None
        finally:
            connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_another_program_and_other_settings_are_taken_up_in_place(serving: World) -> None:
    """Ended and started again, every host of a fleet would call itself draining at once."""
    resident = Resident(serving)
    first, second = resident.ports
    try:
        wait_for("its answer", lambda: resident.answers(first), 20)
        resident.set(second)
        wait_for("its answer on the other port", lambda: resident.answers(second), 20)
        assert not resident.answers(first)
        # The same program in another file tells of itself by nothing but the file that it has open.
        new = serving.paths.program.with_suffix(".new")
        new.write_bytes(program().replace(b'server_version = "sparknode"', b'server_version = "sparkrode"'))
        new.chmod(0o755)
        new.rename(serving.paths.program)

        wait_for("the new program", lambda: resident.answers(second) == "sparkrode", 20)
        resident.process.terminate()
        assert resident.process.wait(20) == 0
    finally:
        resident.process.kill()
        resident.process.wait(5)


def answers_during(world: World) -> list[int]:
    """The answer at each of the activation's commands and waits, each run of one answer once."""
    watcher = Watcher(world.host)
    heard: list[int] = []
    asking = False

    def listen() -> None:
        nonlocal asking
        if not asking:
            asking = True
            heard.append(watcher.answer().status)
            asking = False

    world.on_sleep = world.on_command = listen
    activate(world)
    world.on_sleep = world.on_command = None
    heard.append(watcher.answer().status)
    return [status for at, status in enumerate(heard) if at == 0 or heard[at - 1] != status]


def test_an_upgrade_drains_stops_and_is_ready_once_proven(serving: World) -> None:
    serving.clock += 60
    assert answers_during(serving) == [READY, DRAINING, NOT_SERVING, READY]


def test_a_release_that_fails_is_never_ready(serving: World) -> None:
    serving.clock += 60
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    assert answers_during(serving) == [READY, DRAINING, NOT_SERVING, READY]
    assert serving.paths.linked("current") == OLD["id"]


def test_what_the_watchdog_found_counts_until_an_activation_has_ended(serving: World) -> None:
    serving.clock += 60
    activate(serving)
    watcher = Watcher(serving.host)
    look: dict[str, Any] = {"release": NEW["id"], "verdict": "bad"}
    look |= {"t": "2099-01-01T00:00:00.000Z", "findings": {"memory": "2 GiB"}}
    serving.paths.watch.write_text(json.dumps(look))
    assert watcher.answer().status == READY
    look["findings"] = {"stalled": "no token for 130 s"}
    serving.paths.watch.write_text(json.dumps(look))
    assert watcher.answer().status == NOT_SERVING
    # What the journal tells is newer: that engine is gone.
    look["t"] = "1960-01-01T00:00:00.000Z"
    serving.paths.watch.write_text(json.dumps(look))
    assert watcher.answer().status == READY
    look["t"], look["release"] = "2099-01-01T00:00:00.000Z", "b" * 16
    serving.paths.watch.write_text(json.dumps(look))
    assert watcher.answer().status == READY


def test_a_host_that_another_hook_took_out_drains(serving: World) -> None:
    serving.clock += 60
    serving.hooks["out"] = None
    node = Node({"out": {"command": ["out"]}, "in": {"command": ["in"]}, "timeout_s": 5}, "rotation")
    rotation.take_out(serving.host, rotation_of(node))
    assert Watcher(serving.host).answer().status == DRAINING

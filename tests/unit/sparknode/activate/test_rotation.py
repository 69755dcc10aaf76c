"""Out of rotation before anything stops, and back in once a release is proven, whatever happens in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparknode.activate import rotation
from sparknode.activate.worker import DONE, FAILED, REVERTED
from sparknode.base.paths import ACTIVATE_UNIT
from sparknode.state import journal
from tests.unit.sparknode.acting import OLD, activate, work_once
from tests.unit.sparknode.activate.test_ending import CutOff, cut_at, reboot
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World

ROTATION: dict[str, Any] = {
    "out": {"command": ["/opt/lb", "out", "spark-1"]},
    "in": {"http": {"method": "POST", "url": "http://gateway.lan:9000/in?host=spark-1"}},
    "timeout_s": 10,
}
NEW = release("new", rotation=ROTATION, timing__soak_s=10)
IN = "POST /in?host=spark-1"


@pytest.fixture
def balanced(serving: World) -> World:
    serving.stage(NEW)
    serving.hooks = {"/opt/lb": None, IN: None}
    return serving


def calls(world: World) -> list[str]:
    """The hooks, and what stops and starts the engine, in order."""
    found = [" ".join(command[:2]) for command in world.commands if command[-1] != ACTIVATE_UNIT]
    return [name for name in found if name in {"/opt/lb out", "systemctl stop", "systemctl start"}]


def was_given_back(world: World) -> bool:
    return any(request.host == "gateway.lan" and request.port == 9000 for request in world.requests)


def test_out_before_the_stop_and_in_once_proven(balanced: World) -> None:
    run = activate(balanced, NEW)

    assert run.code == DONE
    assert calls(balanced) == ["/opt/lb out", "systemctl stop", "systemctl start"]
    assert was_given_back(balanced)
    assert run.states[-1] == "committed"
    assert run.last["note"] == "in rotation again (POST http://gateway.lan:9000/in?…)", "a query may hold a secret"
    assert not rotation.is_out(balanced.host)


def test_out_that_fails_stops_nothing_and_puts_the_host_back(balanced: World) -> None:
    balanced.hooks["/opt/lb"] = "connection refused"

    run = activate(balanced, NEW)

    assert run.code == REVERTED
    error = journal.attempts(run.records)[0].last["error"]
    assert "draining: this host could not be taken out of rotation: `/opt/lb out spark-1` ended with 1" in error
    assert "nothing was changed" in error
    assert calls(balanced) == ["/opt/lb out"]
    assert balanced.running == OLD["id"]
    assert was_given_back(balanced), "a hook that timed out may have worked"
    assert journal.known_bad(journal.read(balanced.paths)) == {}


def test_in_that_fails_is_loud_and_keeps_the_release(balanced: World) -> None:
    balanced.hooks[IN] = "no such host"

    run = activate(balanced, NEW)

    assert run.code == DONE
    assert balanced.paths.linked("verified") == NEW["id"]
    assert "STILL OUT OF ROTATION: POST http://gateway.lan:9000/in?…: HTTP 500: no such host" in run.lines[-1]
    assert rotation.is_out(balanced.host)


def test_a_release_that_fails_ends_in_rotation_with_the_old_one(balanced: World) -> None:
    balanced.engines[NEW["id"]] = Engine(acceptance=0.0)

    run = activate(balanced, NEW)

    assert run.code == REVERTED
    assert "in rotation again" in run.last["note"]


def test_a_host_on_which_nothing_serves_stays_out(balanced: World) -> None:
    balanced.engines[NEW["id"]] = Engine(acceptance=0.0)
    balanced.engines[OLD["id"]] = Engine(dies_after_s=1.0)

    assert activate(balanced, NEW).code == FAILED
    assert rotation.is_out(balanced.host)
    assert not was_given_back(balanced)


def test_the_last_requests_are_waited_for_after_the_hook(balanced: World) -> None:
    """Zero once may be the moment between the hook and a request that it came too late for."""
    looks = iter([2.0, 1.0, 0.0, 0.0])
    balanced.drain_rate = 0.0

    def later() -> None:
        balanced.requests_running = next(looks, 0.0)

    balanced.on_sleep = later
    run = activate(balanced, NEW)

    drained = [record["note"] for record in run.records if record["state"] == "draining"][-1]
    assert drained == "no request left after 4 s"


@pytest.mark.parametrize("engine", [None, Engine(acceptance=0.0)], ids=["good release", "bad release"])
def test_a_power_cut_at_any_line_ends_proven_and_in_rotation(tmp_path: Path, engine: Engine | None) -> None:
    line = 0
    while True:
        world = World(tmp_path / f"cut-{line}")
        world.hooks = {"/opt/lb": None, IN: None}
        world.stage(OLD)
        world.stage(NEW, engine)
        world.serve(OLD)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=False)
            try:
                activate(world, NEW)
                break
            except CutOff:
                pass
        said: list[str] = []
        reboot(world, said)

        assert world.paths.linked("current") == world.paths.linked("verified") == world.running, said
        assert not rotation.is_out(world.host), said
        last = journal.last_attempt(journal.read(world.paths))
        assert last is None or last.ended
        line += 1
    assert line > 20


def test_a_host_that_was_cut_off_while_it_drained_is_proven_before_it_gets_requests(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.hooks = {"/opt/lb": None, IN: None}
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, world, 2, torn=False)
        with pytest.raises(CutOff):
            activate(world, NEW)
    world.power_cut()

    def ready() -> None:
        assert not was_given_back(world)
        if not world.running:
            world.boot()

    work_once(world, None, ready)

    assert was_given_back(world)
    last = journal.read(world.paths)[-1]
    assert (last["state"], world.running) == ("reverted", OLD["id"])


def test_what_identifies_the_caller_is_read_from_a_file_and_stands_in_no_line(balanced: World) -> None:
    into = {"method": "POST", "url": "http://gateway.lan:9000/in?host=spark-1", "header_file": "/etc/lb.headers"}
    guarded = release("guarded", rotation={**ROTATION, "in": {"http": into}}, timing__soak_s=0)
    balanced.stage(guarded)
    file = balanced.root / "etc/lb.headers"
    file.write_text("Authorization: Bearer s3cret\nX-Pool: a\n")

    run = activate(balanced, guarded)

    call = next(request for request in balanced.requests if request.host == "gateway.lan")
    assert call.headers == {"Authorization": "Bearer s3cret", "X-Pool": "a"}
    assert not rotation.is_out(balanced.host)
    assert "s3cret" not in "\n".join(run.lines) + balanced.paths.journal.read_text()


def test_a_header_file_that_is_not_there_is_said(balanced: World) -> None:
    into = {"method": "POST", "url": "http://gateway.lan:9000/in", "header_file": "/etc/none"}
    guarded = release("guarded", rotation={**ROTATION, "in": {"http": into}}, timing__soak_s=0)
    balanced.stage(guarded)

    run = activate(balanced, guarded)

    assert run.code == DONE
    assert "STILL OUT OF ROTATION: POST http://gateway.lan:9000/in: /etc/none can't be read" in run.lines[-1]
    assert "then deploy again: it calls it" in run.lines[-1], "this release has no watch"

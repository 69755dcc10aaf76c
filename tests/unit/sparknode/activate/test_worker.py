"""The whole activation on a pretended node: what it writes, what serves afterwards, and how it says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate.worker import DONE, FAILED, REVERTED
from sparknode.base import locks
from sparknode.errors import Busy, Failed, Refused
from sparknode.state import journal
from tests.unit.sparknode.acting import NEW, OLD, activate
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World

FORWARD = ["leased", "draining", "stopping", "reclaiming", "switching", "starting", "probing", "soaking", "committed"]


def test_a_good_release_is_committed_and_becomes_the_verified_one(serving: World) -> None:
    run = activate(serving)

    assert run.code == DONE
    assert run.states == FORWARD
    assert serving.running == NEW["id"]
    assert serving.paths.linked("current") == serving.paths.linked("verified") == NEW["id"]
    assert serving.paths.linked("previous") == OLD["id"]
    assert serving.paths.unit.read_text() == NEW["unit"]
    assert serving.enabled
    assert {"rollout": "rollout-1", "operator": "ops@desk", "from": OLD["id"]}.items() <= run.last.items()
    assert run.last["load_s"] == pytest.approx(5.0, abs=1.0)


def test_every_gate_leaves_its_figure_and_its_threshold(serving: World) -> None:
    run = activate(serving)

    figures = journal.attempts(run.records)[0].forth.figures
    assert figures["acceptance-short"] == {"figure": 0.6, "threshold": 0.3, "unit": "ratio", "verdict": "pass"}
    assert figures["mean-acceptance-length-short"]["figure"] == 7.0
    assert {"ready", "health", "identity", "short-chat", "acceptance-long", "tokens-per-second-short"} <= set(figures)


def test_the_soak_asks_every_gate_again(serving: World) -> None:
    run = activate(serving)

    soaked = [record["gate"]["name"] for record in run.records if record["state"] == "soaking" and "gate" in record]
    assert soaked.count("acceptance-short") >= 2
    assert soaked[-1] == "health-after"


def test_the_first_release_of_a_node_is_committed_with_nothing_before_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.stage(NEW)

    run = activate(world)

    assert run.code == DONE
    assert run.last["from"] is None
    assert world.paths.linked("previous") is None
    assert world.paths.linked("verified") == NEW["id"]


def test_what_serves_already_is_left_alone(serving: World) -> None:
    run = activate(serving, OLD)

    assert run.code == DONE
    assert run.records == []
    assert not [command for command in serving.commands if command[:2] in {("systemctl", "stop"), ("docker", "rm")}]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda world: world.container.update(Args=["serve", "/models/other"]),
        lambda world: write(world.paths.unit, "edited by hand"),
        lambda world: world.power_cut(),
        lambda world: write(world.paths.drop_ins / "override.conf", "[Service]\nEnvironment=A=1\n"),
    ],
    ids=["other arguments", "edited unit", "not running", "drop-in"],
)
def test_a_verified_release_that_drifted_is_brought_up_again(serving: World, spoil: Callable[[World], None]) -> None:
    spoil(serving)

    run = activate(serving, OLD)

    assert run.code == DONE
    assert run.states == FORWARD
    assert serving.running == OLD["id"]
    assert serving.paths.linked("previous") is None
    assert not serving.paths.drop_ins.exists()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_requests_are_drained_before_the_engine_stops(serving: World) -> None:
    serving.requests_running = 5.0

    run = activate(serving)

    notes = [record["note"] for record in run.records if record["state"] == "draining"]
    assert notes[-1] == "no request left after 5 s"


def test_draining_has_an_end(serving: World) -> None:
    serving.requests_running, serving.drain_rate = 3.0, 0.0

    run = activate(serving)

    notes = [record["note"] for record in run.records if record["state"] == "draining"]
    assert notes[-1] == "gave up after 30 s: 3 requests run or wait"
    assert run.code == DONE


def test_a_unit_that_does_not_stop_is_a_failure_with_its_name(serving: World) -> None:
    serving.stop_hangs = True

    run = activate(serving)

    assert run.code == FAILED
    assert "stopping: `systemctl stop sparkfleet-serve.service` did not answer within 130 s" in run.last["error"]


def test_a_port_that_something_else_holds_is_not_mistaken_for_the_engine(tmp_path: Path) -> None:
    world = World(tmp_path, stranger_on_port=True)
    world.stage(NEW)

    run = activate(world)

    assert run.code == FAILED
    assert "port 8000 is taken by something that is not sparkfleet-serve.service" in run.last["error"]


def test_a_stranger_that_shares_the_port_is_found_before_anything_stops(serving: World) -> None:
    container = serving.container
    assert container is not None
    serving.spawn_process(41, "vllm serve", f"/docker/{container['Id']}")
    serving.spawn_process(4242, "python3 -m http.server", "/user.slice/session-3.scope")
    serving.listeners = [41, 4242]

    run = activate(serving)

    assert run.code == REVERTED
    assert "port 8000 is taken by python3 -m http.server (pid 4242) that is not" in run.last["error"]
    assert "nothing was changed" in run.last["error"]
    assert serving.running == OLD["id"]
    assert not any(command[:2] == ("systemctl", "stop") for command in serving.commands)


def test_our_own_engine_on_the_port_is_no_stranger(serving: World) -> None:
    container = serving.container
    assert container is not None
    serving.spawn_process(41, "vllm serve", f"/docker/{container['Id']}")
    serving.listeners = [41]

    assert activate(serving).code == DONE


def test_a_docker_that_hiccups_while_loading_costs_nothing(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(load_s=60.0)

    def hiccup() -> None:
        age = serving.clock - serving.started_at
        serving.docker_silent = serving.running == NEW["id"] and 10.0 < age < 40.0

    serving.on_sleep = hiccup

    assert activate(serving).code == DONE


def test_systemd_is_reloaded_only_when_the_unit_changed(tmp_path: Path) -> None:
    world = World(tmp_path)
    same = release("same-unit", unit=OLD["unit"])
    world.stage(OLD)
    world.stage(same)
    world.serve(OLD)

    assert activate(world, same).code == DONE
    assert ("systemctl", "daemon-reload") not in world.commands


def test_a_release_that_is_not_staged_is_refused_before_anything_stops(serving: World) -> None:
    with pytest.raises(Refused, match="is not staged on this host"):
        activate(serving, release("unknown"))

    assert serving.running == OLD["id"]


def test_an_incomplete_way_back_is_refused_before_anything_stops(serving: World) -> None:
    del serving.images[OLD["image"]["reference"]]

    with pytest.raises(Refused, match=f"the release to roll back to, {OLD['id']} is not complete here"):
        activate(serving)

    assert serving.running == OLD["id"]
    assert journal.read(serving.paths) == []


@pytest.mark.parametrize("intent", ["deploy", "rollback", "restart"])
def test_images_that_went_with_their_store_are_refused_before_anything_stops(serving: World, intent: str) -> None:
    serving.images.clear()

    with pytest.raises(Refused, match=r"is not complete here: image .* is not here; stage it again"):
        activate(serving, OLD if intent == "restart" else NEW, intent=intent)

    assert serving.running == OLD["id"]
    assert journal.read(serving.paths) == []
    assert not [command for command in serving.commands if command[:2] == ("systemctl", "stop")]


@pytest.mark.parametrize("gone", [OLD, NEW])
def test_an_image_that_goes_after_the_order_was_given_stops_nothing(serving: World, gone: dict[str, Any]) -> None:
    serving.requests_running = 3.0
    reference = gone["image"]["reference"]

    def switch() -> None:
        serving.images.pop(reference, None)

    serving.on_sleep = switch
    run = activate(serving)

    assert run.code == REVERTED
    assert run.last["error"].endswith("stage it again; nothing was changed, what served before still serves")
    assert f"image {reference} is not here" in run.last["error"]
    assert serving.running == OLD["id"]
    assert not [command for command in serving.commands if command[:2] == ("systemctl", "stop")]


def test_a_silent_docker_is_no_reason_to_stop_what_serves(serving: World) -> None:
    serving.docker_silent = True

    with pytest.raises(Failed, match="nothing was changed"):
        activate(serving, OLD)

    assert serving.running == OLD["id"]


def test_what_holds_the_host_is_waited_for_and_then_named(serving: World) -> None:
    with locks.hold(serving.paths, "pruning"), pytest.raises(Busy, match=r"pruning \(pid \d+, since .*\) is under way"):
        activate(serving)

    assert serving.clock > 60.0
    assert journal.read(serving.paths) == []
    assert serving.running == OLD["id"]


def test_a_fault_of_its_own_still_brings_the_old_release_back(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparknode.gates.table.served_differences", lambda *_: 1 / 0)

    run = activate(serving)

    assert run.code == FAILED, "the same fault hits the proof of the old release"
    assert "unexpected ZeroDivisionError" in run.last["error"]
    assert serving.paths.linked("current") == OLD["id"]


def test_a_journal_that_can_not_be_written_before_the_stop_changes_nothing(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "append", full)

    run = activate(serving)

    assert run.code == REVERTED
    assert serving.running == OLD["id"]
    assert "No space left on device" in "\n".join(run.said)


def test_a_journal_that_fills_up_half_way_does_not_stop_the_way_back(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = journal.append

    def full(paths: Any, record: dict[str, Any]) -> None:
        if record["state"] in {"starting", "reverting", "reverted"}:
            raise OSError(28, "No space left on device")
        real(paths, record)

    monkeypatch.setattr(journal, "append", full)

    run = activate(serving)

    assert run.code == REVERTED
    assert serving.running == OLD["id"]


def test_the_api_key_goes_to_the_engine_and_into_no_line(tmp_path: Path) -> None:
    document = release("guarded", api_key_file="/etc/sparkfleet/api-key.env")
    world = World(tmp_path)
    world.stage(document)
    key_file = tmp_path / "etc/sparkfleet/api-key.env"
    key_file.parent.mkdir(parents=True)
    key_file.write_text("# the key\nVLLM_API_KEY=s3cret-key\n")

    run = activate(world, document)

    assert run.code == DONE
    told = {request.path: request.headers.get("Authorization") for request in world.requests}
    assert {path for path, key in told.items() if key == "Bearer s3cret-key"} == {"/v1/models", "/v1/chat/completions"}
    assert {told[path] for path in ("/health", "/metrics", "/version", "/tokenize")} == {None}
    assert "s3cret" not in "\n".join(run.lines) + world.paths.journal.read_text()
    assert not [command for command in world.commands if "s3cret" in " ".join(command)]


def test_a_disk_that_fills_up_before_the_engine_stops_leaves_it_alone(
    serving: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker can start no container on a full disk, so nothing would serve until somebody makes room."""
    free = iter([10**9, 1000, 1000])
    monkeypatch.setattr("sparknode.host.drift.shutil.disk_usage", lambda _: type("Usage", (), {"free": next(free)}))

    run = activate(serving)

    assert run.code == REVERTED
    assert "0 MB are free; make room first" in run.last["error"]
    assert "nothing was changed" in run.last["error"]
    assert serving.running == OLD["id"]
    assert not [command for command in serving.commands if command[:2] == ("systemctl", "stop")]


def test_the_line_that_ends_it_is_written_once_there_is_room(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)
    real, since = journal.append, []

    def full(paths: Any, record: dict[str, Any]) -> None:
        if record["state"] == "reverted":
            since.append(serving.clock)
            if serving.clock - since[0] < 30.0:
                raise OSError(28, "No space left on device")
        real(paths, record)

    monkeypatch.setattr(journal, "append", full)

    run = activate(serving)

    assert run.code == REVERTED
    assert run.last["state"] == "reverted"
    assert serving.running == OLD["id"]

"""A host that is given back keeps nothing of the tool's but, unless asked, its weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknode.activate.retire import retire
from sparknode.activate.worker import DONE
from sparknode.base import locks
from sparknode.errors import Busy, LeaseHeld, StepFailed
from sparknode.state import journal, lease, orders
from sparknode.state.orders import Order
from tests.unit.sparknode.acting import OLD
from tests.unit.sparknode.world import World


@pytest.fixture
def serving(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.stage(OLD)
    world.serve(OLD)
    world.paths.program.parent.mkdir(parents=True)
    world.paths.program.write_text("zip")
    for name in ("sparkfleet-watch.timer", "sparkfleet-verify.service"):
        world.paths.unit.with_name(name).write_text("[Unit]\n")
    world.paths.drop_ins.mkdir()
    (world.paths.models / "org/m" / ("c" * 40)).mkdir(parents=True, exist_ok=True)
    (world.paths.models / "org/m" / ("c" * 40) / "model.safetensors").write_text("x")
    return world


def give_back(world: World, **more: bool) -> tuple[int, list[str]]:
    lines: list[str] = []
    return retire(world.host, "r1", "ops@desk", models=more.get("models", False), tell=lines.append), lines


def test_requests_end_before_the_engine_and_everything_else_goes(serving: World) -> None:
    serving.requests_running = 3.0
    code, lines = give_back(serving)
    assert code == DONE
    assert serving.running is None
    assert not serving.enabled
    assert not list(serving.paths.unit.parent.glob("sparkfleet-*"))
    timers, others = [command for command in serving.commands if command[:3] == ("systemctl", "disable", "--now")]
    assert timers[-1] == "sparkfleet-watch.timer", "a look that is ended must not be begun again by its timer"
    assert others[-1] == "sparkfleet-verify.service"
    assert not serving.paths.program.exists()
    assert [path.name for path in serving.paths.data.iterdir()] == ["models"]
    assert any("no request left" in line for line in lines)
    assert lines[-1].startswith(f"retired; left: {serving.paths.models}")
    assert any(line.startswith(f"image {OLD['image']['reference']}: ") for line in lines)


def test_no_unit_stays_behind_as_failed_without_its_file(serving: World) -> None:
    give_back(serving)
    orders = [command[1] for command in serving.commands if command[0] == "systemctl"]
    forgotten = next(command for command in serving.commands if command[:2] == ("systemctl", "reset-failed"))
    assert {"sparkfleet-watch.timer", "sparkfleet-verify.service", "sparkfleet-serve.service"} < set(forgotten)
    assert orders.index("stop") < orders.index("reset-failed") < orders.index("daemon-reload")


def test_the_weights_go_when_they_are_named(serving: World) -> None:
    code, lines = give_back(serving, models=True)
    assert code == DONE
    assert not serving.paths.data.exists()
    assert lines[-1].startswith("retired; left: nothing")


def test_an_image_whose_release_was_lost_goes_too(serving: World) -> None:
    orphan = {"Id": "sha256:" + "e" * 64, "Architecture": "arm64", "RepoDigests": [f"mirror/vllm@sha256:{'f' * 64}"]}
    foreign = {"Id": "sha256:" + "a" * 64, "Architecture": "arm64", "RepoDigests": []}
    serving.images |= {f"ghcr.io/x/vllm:sha256-{'f' * 64}": orphan, "postgres:17": foreign}
    code, _ = give_back(serving)
    assert code == DONE
    assert list(serving.images) == ["postgres:17"]
    removed = [command for command in serving.commands if command[:3] == ("docker", "image", "rm")]
    assert f"mirror/vllm@sha256:{'f' * 64}" in {name for command in removed for name in command[3:]}


def test_images_that_docker_does_not_list_are_not_called_removed(serving: World) -> None:
    serving.docker_silent = True
    _, lines = give_back(serving)
    assert not [line for line in lines if line.endswith(": removed")]
    assert any(line.startswith("images: left, since Docker did not report which are here: ") for line in lines)


def test_a_bare_host_has_nothing_to_lose(tmp_path: Path) -> None:
    assert give_back(World(tmp_path))[0] == DONE


def test_neither_a_roll_out_nor_an_activation_is_disturbed(serving: World) -> None:
    with locks.hold(serving.paths, "pruning"), pytest.raises(Busy, match=r"pruning .* is under way"):
        give_back(serving)
    orders.place(serving.paths, Order(OLD["id"], "r0", "ann@desk"))
    with pytest.raises(Busy, match=r"by ann@desk \(rollout r0\) is under way"):
        give_back(serving)
    orders.close(serving.paths)
    lease.take(serving.host, "r0", "ann@desk", "10.0.0.9", 60.0)
    with pytest.raises(LeaseHeld):
        give_back(serving)
    assert serving.running == OLD["id"]


def test_an_engine_that_does_not_stop_is_said_and_nothing_is_removed(serving: World) -> None:
    serving.stop_hangs = True

    with pytest.raises(StepFailed, match="stopping: `systemctl stop"):
        give_back(serving)

    last = journal.read(serving.paths)[-1]
    assert (last["state"], last["intent"]) == ("failed", "retire")
    assert last["error"].endswith("nothing was removed")
    assert serving.paths.program.exists()


def test_a_unit_of_such_a_name_that_is_not_ours_stays(serving: World) -> None:
    theirs = serving.paths.unit.with_name("sparkfleet-backup.timer")
    theirs.write_text("[Timer]\n")

    give_back(serving)

    assert theirs.exists()

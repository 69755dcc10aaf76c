"""`sparknode watch`: what it finds, what it does about it, and when it keeps its hands off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate import rotation
from sparknode.base import locks
from sparknode.base.http import Answer, Request
from sparknode.base.paths import ACTIVATE_UNIT
from sparknode.base.process import Completed
from sparknode.base.system import Host
from sparknode.host.node_status import report as status
from sparknode.state import journal, lease, orders
from sparknode.state.orders import Order
from sparknode.state.release import Release
from sparknode.watchdog import lookout
from sparknode.watchdog.lookout import Sight, look
from tests.unit.sparknode.acting import activate
from tests.unit.sparknode.builders import WATCH, release
from tests.unit.sparknode.world import World

WATCHED = release("watched", watch=WATCH)


def serving_release(root: Path, **changes: Any) -> World:
    document = release("watched", watch={**WATCH, **changes})
    world = World(root)
    world.stage(document)
    assert activate(world, document).code == 0
    world.commands.clear()
    world.clock += 60.0
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return serving_release(tmp_path)


def glance(world: World, minutes: int = 1) -> dict[str, Any]:
    for _ in range(minutes):
        world.sleep(60.0)
        assert look(world.host, lambda _: None) == 0
    found: dict[str, Any] = json.loads(world.paths.watch.read_text())
    return found


def restarts(world: World) -> int:
    return len([command for command in world.commands if command[:2] == ("systemctl", "restart")])


def said(world: World) -> list[str]:
    records = [json.loads(line) for line in world.paths.journal.read_text().splitlines()]
    return [record["note"] for record in records if record["state"] == "watch"]


def hang(world: World, requests: float = 3.0) -> None:
    world.requests_running, world.drain_rate = requests, 0.0


def drafted(world: World, drafts: float, rate: float) -> None:
    world.counters["drafts"] += drafts
    world.counters["draft_tokens"] += drafts * 10
    world.counters["accepted_tokens"] += drafts * 10 * rate


def test_an_engine_that_works_is_well_and_nothing_is_written_about_it(world: World) -> None:
    for _ in range(5):
        hang(world)
        world.beat += 100
        drafted(world, 250, 0.5)
        found = glance(world)

    assert (found["verdict"], found["findings"], found["acceptance"]) == ("ok", {}, 0.5)
    assert found["baseline"] == 0.6
    assert said(world) == []
    assert restarts(world) == 0


def test_an_idle_engine_is_not_stalled(world: World) -> None:
    assert glance(world, 10)["verdict"] == "ok"
    assert restarts(world) == 0


def test_requests_without_tokens_and_without_power_are_cured_by_one_restart(world: World) -> None:
    hang(world)
    world.power_w = 13.0
    assert glance(world, 2)["verdict"] == "ok"

    glance(world)

    assert restarts(world) == 1
    assert said(world)[-1] == ("restarting the engine: 3 requests run and no token came for 120 s, the GPU draws 13 W")


def test_it_stops_trying_and_says_so(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    found = glance(world, 12)

    assert restarts(world) == 1
    assert "not restarting: restarted 1 times without a cure" in found["findings"]["circuit"]
    assert found["circuit_open"] is True
    assert len([line for line in said(world) if "not restarting" in line]) == 1
    assert "sparkfleet_watch_circuit_open 1" in world.paths.metrics.read_text()


def test_an_engine_that_was_well_for_an_hour_may_be_restarted_again(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    glance(world, 4)
    world.requests_running = 0.0
    glance(world, 65)
    hang(world)
    glance(world, 4)

    assert restarts(world) == 2


def test_frozen_tokens_under_power_are_given_longer(world: World) -> None:
    hang(world)
    glance(world, 6)
    assert restarts(world) == 0

    glance(world, 2)
    assert restarts(world) == 1


def test_a_collapse_is_reported_and_cured_only_where_that_is_the_known_cure(tmp_path: Path) -> None:
    for cure in (False, True):
        world = serving_release(tmp_path / str(cure), restart_on_collapse=cure)
        glance(world)
        drafted(world, 250, 0.01)

        found = glance(world)

        text = "1.0 % of drafted tokens accepted, expected at least 20.0 % (verified with 60.0 %)"
        assert found["findings"]["acceptance"] == text
        assert restarts(world) == int(cure)


def test_a_window_is_judged_when_it_is_whole(world: World) -> None:
    glance(world)
    drafted(world, 150, 0.01)
    assert glance(world)["acceptance"] is None
    drafted(world, 60, 0.01)

    assert glance(world)["acceptance"] == 0.01


def test_it_keeps_away_from_an_activation(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    glance(world, 2)
    record = {"t": "x", "activation": "later", "release": WATCHED["id"], "state": "starting"}
    journal.append(world.paths, record)
    orders.place(world.paths, Order(WATCHED["id"], "r1", "ops@desk", activation="later"))

    with locks.hold(world.paths):
        found = glance(world, 5)

    assert (found["verdict"], found["findings"], restarts(world)) == ("busy", {}, 0)
    assert "sparkfleet_watch_busy 1" in world.paths.metrics.read_text()


def test_it_judges_and_leaves_alone_what_somebody_else_changes(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    with locks.hold(world.paths):
        found = glance(world, 5)
        assert (found["verdict"], restarts(world)) == ("bad", 0)
        assert "stalled" in found["findings"]

    glance(world)

    assert restarts(world) == 1


def test_a_lease_of_a_long_roll_out_keeps_no_host_from_being_cured(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    lease.take(world.host, "rollout-9", "ops", "10.0.0.9", 3600.0)

    found = glance(world, 3)

    assert (found["verdict"], restarts(world)) == ("bad", 1)
    assert "sparkfleet_watch_busy 1" in world.paths.metrics.read_text()


def test_an_activation_that_came_during_the_look_goes_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.power_w = 13.0
    hang(world)
    glance(world, 2)
    real = lookout.see

    def see(host: Host, watched: Release) -> Sight:
        sight = real(host, watched)
        record = {"t": "x", "activation": "quick", "release": WATCHED["id"], "state": "committed"}
        journal.append(world.paths, record)
        return sight

    monkeypatch.setattr(lookout, "see", see)

    assert "stalled" in glance(world)["findings"]
    assert restarts(world) == 0


def resumed(world: World) -> int:
    return world.commands.count(("systemctl", "start", "--no-block", ACTIVATE_UNIT))


def test_an_unfinished_activation_is_a_finding_and_is_ended(world: World) -> None:
    out_of_rotation(world)
    record = {"t": "x", "activation": "later", "release": "f" * 16, "state": "probing"}
    journal.append(world.paths, record)
    orders.place(world.paths, Order("f" * 16, "r1", "ops@desk", activation="later"))
    world.on_work = None
    world.power_w = 13.0
    hang(world)

    found = glance(world, 5)

    assert found["verdict"] == "bad"
    assert found["findings"]["activation"].startswith(
        "the activation of release ffffffffffffffff by ops@desk (rollout r1), which stands in `probing` has no worker"
    )
    assert resumed(world) == 5
    assert restarts(world) == 0, "what serves may be neither release; its own way back decides"
    assert rotation.is_out(world.host)
    assert len([line for line in said(world) if "has no worker" in line]) <= 2


@pytest.mark.parametrize("state", ["failed", "probing", "reverting"])
def test_no_state_but_a_proven_end_gives_a_host_back(world: World, state: str) -> None:
    out_of_rotation(world)
    journal.append(world.paths, {"t": "x", "activation": "later", "release": WATCHED["id"], "state": state})

    glance(world, 3)

    assert rotation.is_out(world.host)


def test_a_release_that_is_not_the_verified_one_is_not_given_requests(world: World) -> None:
    out_of_rotation(world)
    world.paths.link("verified").unlink()

    glance(world, 3)

    assert rotation.is_out(world.host)


def out_of_rotation(world: World, trouble: str | None = None) -> None:
    hook = {"command": ["/opt/lb", "in"]}
    content = {"since": "x", "rotation": {"out": hook, "in": hook, "timeout_s": 5}}
    world.paths.out_of_rotation.write_text(json.dumps(content))
    world.hooks = {"/opt/lb": trouble}


def test_a_hook_that_fails_for_hours_fills_no_journal(world: World) -> None:
    out_of_rotation(world, "connection refused")
    glance(world, 60)
    first_hour = len(said(world))

    found = glance(world, 180)

    assert "STILL OUT OF ROTATION" in found["findings"]["rotation"]
    assert len(said(world)) == first_hour < 10
    assert "sparkfleet_out_of_rotation 1" in world.paths.metrics.read_text()


def test_a_restart_is_forgotten_whatever_else_is_found(world: World) -> None:
    world.power_w = 13.0
    hang(world)
    glance(world, 4)
    assert restarts(world) == 1
    world.requests_running = 0.0
    pressure = world.root / "proc/pressure"
    pressure.mkdir()
    (pressure / "memory").write_text("full avg10=2.50 avg60=0 avg300=0 total=0\n")
    assert "pressure" in glance(world, 65)["findings"]

    hang(world)
    glance(world, 4)

    assert restarts(world) == 2


def test_a_disk_that_is_full_restarts_nothing_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.power_w = 13.0
    hang(world)

    def full(path: Path, _: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    glance(world, 2)
    monkeypatch.setattr(lookout, "atomic_write", full)
    for _ in range(5):
        world.sleep(60.0)
        with pytest.raises(OSError, match="No space left"):
            look(world.host, lambda _: None)

    assert restarts(world) == 0


def test_a_program_that_hangs_on_the_gpu_is_not_called_each_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, called = world.run, []

    def run(argv: Sequence[str], timeout: float) -> Completed:
        if "nvidia-smi" in argv:
            called.append(argv)
            return Completed(tuple(argv), None, timeout=timeout)
        return real(argv, timeout)

    monkeypatch.setattr(world, "run", run)

    found = glance(world, 60)

    assert 8 <= len(called) <= 10, "both of them four or five times an hour"
    assert found["findings"] == {}


def test_the_host_s_troubles_are_found_and_not_acted_upon(world: World) -> None:
    pressure = world.root / "proc/pressure"
    pressure.mkdir()
    (pressure / "memory").write_text(
        "some avg10=9.00 avg60=0 avg300=0 total=0\nfull avg10=2.50 avg60=0 avg300=0 total=0\n"
    )
    world.gpu_said = "Failed to initialize NVML: Unknown Error"
    meminfo = world.root / "proc/meminfo"
    world.restarts = 2
    world.sleep(60.0)
    meminfo.write_text("MemTotal: 127535224 kB\nMemAvailable: 2097152 kB\n")
    look(world.host, lambda _: None)

    found = json.loads(world.paths.watch.read_text())["findings"]

    assert found["memory"] == "2.0 GiB available, expected at least 4 GiB"
    assert found["pressure"] == "everything waited for memory 2.5 % of the last 10 s"
    assert found["gpu"].startswith("the container does not see the GPU")
    assert restarts(world) == 0


def test_restarts_by_systemd_are_counted(world: World) -> None:
    glance(world)
    world.restarts = 2

    assert glance(world)["findings"]["restarts"] == "systemd restarted the engine 2 times since the last look"
    assert glance(world)["verdict"] == "ok"
    assert said(world)[-1] == "well again (it was: restarts)"


def test_an_engine_that_fell_silent_and_a_unit_that_failed_are_found(world: World) -> None:
    glance(world)
    world.engines[release("watched", watch=WATCH)["id"]].never_ready = True
    assert "silent" in glance(world, 2)["findings"]
    world.failed, world.running = True, None

    assert glance(world)["findings"]["unit"] == "the serving unit is failed"
    assert restarts(world) == 0


def test_a_host_that_stayed_out_of_rotation_is_given_back(world: World) -> None:
    hook = {"command": ["/opt/lb", "in"]}
    content = {"since": "x", "rotation": {"out": hook, "in": hook, "timeout_s": 5}}
    world.paths.out_of_rotation.write_text(json.dumps(content))
    world.hooks = {"/opt/lb": None}

    glance(world)

    assert not rotation.is_out(world.host)
    assert said(world) == ["in rotation again (/opt/lb in)"]


def test_a_host_whose_engine_was_never_proven_stays_out(world: World) -> None:
    hook = {"command": ["/opt/lb", "in"]}
    content = {"since": "x", "rotation": {"out": hook, "in": hook, "timeout_s": 5}}
    world.paths.out_of_rotation.write_text(json.dumps(content))
    journal.append(world.paths, {"t": "x", "activation": "later", "release": WATCHED["id"], "state": "failed"})

    glance(world)

    assert rotation.is_out(world.host)


def test_off_by_choice_and_without_a_release_nothing_is_asked(tmp_path: Path) -> None:
    world = serving_release(tmp_path, enabled=False)
    assert glance(world)["verdict"] == "off"
    assert not [command for command in world.commands if command[0] == "docker"]

    assert glance(World(tmp_path / "bare"))["verdict"] == "off"


def test_its_lines_are_no_activation(world: World) -> None:
    attempts = journal.attempts(journal.read(world.paths))
    world.restarts = 2
    glance(world)
    world.restarts = 5
    glance(world)

    assert said(world)
    assert journal.attempts(journal.read(world.paths)) == attempts


def test_the_probe_shows_the_last_look_and_the_textfile_parses(world: World) -> None:
    hang(world)
    glance(world)

    assert status(world.host)["watch"]["running"] == 3.0
    text = world.paths.metrics.read_text()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert f'sparkfleet_current{{release="{WATCHED["id"]}"}} 1' in samples
    assert f"sparkfleet_watch_time_seconds {world.now():.0f}" in samples
    assert any(sample.startswith("sparkfleet_memory_available_bytes 512") for sample in samples)
    heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


def test_garbage_in_its_memory_is_forgotten(world: World) -> None:
    for text in ("{", "[]", '{"release": 3, "restarts": "x", "window": "y", "findings": []}'):
        world.paths.watch.write_text(text)

        assert glance(world)["verdict"] == "ok"


def test_speed_is_what_all_requests_made_since_the_look_before(world: World) -> None:
    assert glance(world)["tokens_per_second"] is None
    world.beat += 6000
    assert glance(world)["tokens_per_second"] == 100.0
    assert glance(world)["tokens_per_second"] == 0.0


def test_a_complaint_is_void_once_an_activation_has_ended(world: World) -> None:
    world.gpu_said = "Failed to initialize NVML: Unknown Error"
    assert glance(world)["verdict"] == "bad"
    assert status(world.host)["watch"]["verdict"] == "bad"

    world.gpu_said = "GPU 0: NVIDIA GB10 (UUID: GPU-0)"
    assert activate(world, WATCHED, intent="restart").code == 0
    assert status(world.host)["watch"] is None
    assert glance(world)["verdict"] == "ok"
    assert status(world.host)["watch"]["verdict"] == "ok"


def test_a_figure_near_its_limit_does_not_fill_the_journal(world: World) -> None:
    for turn in range(60):
        world.gpu_said = "Failed to initialize NVML: Unknown Error" if turn % 2 else "GPU 0: NVIDIA GB10 (UUID: GPU-0)"
        assert glance(world)["verdict"] == ("bad" if turn % 2 else "ok")
    assert len(said(world)) == 6
    world.gpu_said = "Failed to initialize NVML: Unknown Error"
    glance(world, 60)
    assert said(world)[-1].startswith("the container does not see the GPU"), "what stays so is said in the end"


@pytest.mark.parametrize("meanwhile", ["worker", "lease"])
def test_a_host_that_a_roll_out_took_out_during_the_look_stays_out(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    hook = {"command": ["/opt/lb", "in"]}
    content = json.dumps({"since": "x", "rotation": {"out": hook, "in": hook, "timeout_s": 5}})
    real, busy = lookout.see, ExitStack()

    def see(host: Host, watched: Release) -> Sight:
        sight = real(host, watched)
        world.paths.out_of_rotation.write_text(content)
        if meanwhile == "worker":
            busy.enter_context(locks.hold(world.paths))
        else:
            lease.take(world.host, "r9", "ann@desk", "10.0.0.9", 60.0)
        return sight

    monkeypatch.setattr(lookout, "see", see)
    with busy:
        assert glance(world)["verdict"] == "ok"
        assert rotation.is_out(world.host)
    assert ("/opt/lb", "in") not in world.commands


@pytest.mark.parametrize("power", ["[N/A]", "80.0", "12.0"])
def test_a_long_prefill_is_left_alone_whatever_the_power(world: World, power: str) -> None:
    hang(world, 1.0)
    world.power_w = power  # type: ignore[assignment]
    for step in range(8):
        world.kv_use = 0.05 * (step + 1)
        found = glance(world)

    assert (found["verdict"], found["frozen_s"], restarts(world)) == ("ok", 0.0, 0)


def test_power_that_nobody_can_tell_is_no_wedge(world: World) -> None:
    hang(world)
    world.power_w = "[N/A]"  # type: ignore[assignment]

    glance(world, 6)
    assert restarts(world) == 0

    glance(world)
    assert restarts(world) == 1


def test_a_clock_that_steps_makes_no_hang(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.power_w = 12.0
    hang(world)
    glance(world)
    monkeypatch.setattr(World, "now", lambda self: 1_795_000_000.0 + self.clock + 130.0)

    assert glance(world)["frozen_s"] == 60.0
    assert restarts(world) == 0


def test_a_hang_that_begins_while_idle_is_found_by_a_token_that_never_comes(world: World) -> None:
    def silence(_: dict[str, Any]) -> Answer:
        world.clock += 30.0
        return Answer(None, error="no answer within 30 s")

    asked = len(world.requests)
    glance(world, 5)
    world.engines[WATCHED["id"]].chat = silence

    found = glance(world, 9)

    assert restarts(world) == 1
    assert any("nothing ran, and" in line for line in said(world))
    assert found["frozen_s"] == 0.0
    questions = [json.loads(request.body or b"{}") for request in world.requests[asked:] if request.method == "POST"]
    assert {question["max_tokens"] for question in questions} == {1}


def test_an_idle_engine_is_asked_for_one_token_every_few_minutes_and_a_busy_one_never(world: World) -> None:
    asked = len(world.requests)
    glance(world, 60)
    idle = [request for request in world.requests[asked:] if request.method == "POST"]
    assert 10 <= len(idle) <= 30

    asked = len(world.requests)
    for _ in range(60):
        hang(world)
        world.beat += 100
        glance(world)
    assert [request for request in world.requests[asked:] if request.method == "POST"] == []


def test_an_api_that_accepts_and_never_answers_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    glance(world, 2)

    def http(request: Request) -> Answer:
        world.clock += request.timeout
        return Answer(None, error=f"no answer within {request.timeout:.0f} s")

    monkeypatch.setattr(world, "http", http)

    assert "silent" in glance(world, 3)["findings"]
    glance(world, 6)

    assert restarts(world) == 1
    assert any("answered nothing at all for" in line for line in said(world))


def test_metrics_that_are_refused_to_us_are_no_silence(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    glance(world, 2)
    real = world.http
    monkeypatch.setattr(world, "http", lambda request: Answer(401) if request.path == "/metrics" else real(request))

    assert glance(world)["findings"] == {}
    assert list(glance(world, 20)["findings"]) == ["metrics"]
    assert restarts(world) == 0


def test_an_engine_that_is_being_stopped_is_no_silent_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM 0.26.0 closes its port at once and answers what it had taken for a minute."""
    glance(world, 2)
    world.engines[WATCHED["id"]].never_ready = True
    real = world._shown
    monkeypatch.setattr(world, "_shown", lambda: real().replace("ActiveState=active", "ActiveState=deactivating"))

    assert glance(world)["findings"] == {"unit": "the serving unit is deactivating"}


def test_the_textfile_has_whole_bytes(world: World) -> None:
    glance(world)

    line = next(
        line for line in world.paths.metrics.read_text().splitlines() if line.startswith("sparkfleet_memory_av")
    )
    assert line == f"sparkfleet_memory_available_bytes {5_000_000 * 1024}"


def test_an_hour_after_a_restart_systemd_begins_to_count_anew(world: World) -> None:
    """Each restart makes the pause before the next one longer, and a year has many reasons for one."""
    reset = ("systemctl", "reset-failed", "sparkfleet-serve.service")
    glance(world)
    world.restarts = 2
    glance(world, 50)
    assert reset not in world.commands

    glance(world, 15)

    assert reset in world.commands

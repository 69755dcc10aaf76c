"""Models between hosts over real links with aria2 and rsync: right files or a reason, and nothing listens after."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest

from sparkfleet.artefacts.spread import Ways, spread
from sparknode.base.paths import Paths
from sparknode.base.shape import Node
from sparknode.models import manifest as manifests
from tests.lab import hub_faults
from tests.lab.spread.net import Light, Net, network
from tests.lab.spread.world import COMMIT, REPO, make_model, put, wrong

pytestmark = pytest.mark.skipif(
    os.environ.get("CI") != "true"
    and (os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "aria2c", "rsync")))),
    reason="needs root, iproute2, aria2 and rsync",
)
SIZE = 24_000_000
WAYS = Ways(distribution="auto", stall_s=6, deadline_s=90)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("model")
    return folder, make_model(folder, SIZE)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with network(tmp_path, 5, lan_mbit=100, wan_mbit=40) as made:
        yield made


def go(
    model: dict[str, Any], givers: list[Light], takers: list[Light], ways: Ways = WAYS
) -> tuple[dict[str, str], list[str]]:
    lines: list[str] = []
    problems = spread(manifests.from_node(Node(model, "model")), givers, takers, ways, lines.append)
    for light in (*givers, *takers):
        if not light.off:
            assert light.listening() == []
            assert not (Paths(light.root).spread).exists()
    return problems, lines


@pytest.mark.parametrize("engine", ["swarm", "rsync"])
def test_everybody_gets_all_and_nothing_listens_afterwards(
    net: Net, model: tuple[Path, dict[str, Any]], engine: str
) -> None:
    first, *others = net.hosts
    put(first, *model)

    problems, lines = go(model[1], [first], others, Ways(distribution=engine, stall_s=6, deadline_s=90))  # type: ignore[arg-type]

    assert problems == {}
    assert [wrong(light, model[1]) for light in others] == [[]] * len(others)
    assert any("of 4 hosts have all" in line and "MB/s" in line for line in lines)
    # A second model may follow at once: ports and locks are free.
    assert go(model[1], [first], others[:1])[0] == {}


@pytest.mark.parametrize("count", [1, 4])
def test_the_wan_carries_the_model_once_for_any_number_of_hosts(
    net: Net, model: tuple[Path, dict[str, Any]], tmp_path: Path, count: int
) -> None:
    store = tmp_path / "store" / REPO
    shutil.copytree(model[0], store / COMMIT)
    (store / "refs").mkdir()
    (store / "refs/main").write_text(COMMIT)
    url = net.serve_hub(tmp_path / "store", tmp_path)
    seed, *others = net.hosts[:count]
    import sys

    request = {"schema": 1, "manifest": model[1], "endpoint": url, "reserve_bytes": 0, "python": sys.executable}
    answer = seed.call(["fetch"], json.dumps(request))
    assert answer.ok, answer.stderr

    problems, _ = go(model[1], [seed], others)

    assert problems == {}
    assert hub_faults.bytes_served(folder=tmp_path) <= 1.05 * sum(row["size"] for row in model[1]["files"])
    assert [wrong(light, model[1]) for light in others] == [[]] * len(others)
    # One more host, later, from any of them: nothing more comes over the WAN.
    before = hub_faults.bytes_served(folder=tmp_path)
    assert go(model[1], [seed], [net.hosts[4]])[0] == {}
    assert hub_faults.bytes_served(folder=tmp_path) == before


def kill_after(seconds: float, light: Light) -> gevent.Greenlet:
    def kill() -> None:
        gevent.sleep(seconds)
        light.power_off()

    return gevent.spawn(kill)


def test_a_seed_that_dies_for_good_leaves_the_other_one(net: Net, model: tuple[Path, dict[str, Any]]) -> None:
    one, two, *others = net.hosts
    put(one, *model)
    put(two, *model)
    death = kill_after(2.0, one)

    problems, _ = go(model[1], [one, two], others)

    death.join()
    assert problems == {}
    assert [wrong(light, model[1]) for light in others] == [[]] * len(others)


def test_when_the_only_seed_dies_everybody_is_told_within_the_deadline(
    net: Net, model: tuple[Path, dict[str, Any]]
) -> None:
    one, *others = net.hosts
    put(one, *model)
    death = kill_after(1.5, one)
    began = time.monotonic()

    problems, _ = go(model[1], [one], others)

    death.join()
    assert time.monotonic() - began < WAYS.deadline_s
    assert set(problems) == {light.name for light in others}
    assert not any(wrong(light, model[1]) == [] for light in others)
    assert not any(Paths(light.root).model_dir(REPO, COMMIT).exists() for light in others)


def test_a_peer_that_dies_fails_alone_and_gets_the_rest_the_next_time(
    net: Net, model: tuple[Path, dict[str, Any]]
) -> None:
    one, *others = net.hosts
    put(one, *model)
    death = kill_after(2.0, others[0])

    problems, _ = go(model[1], [one], others)

    death.join()
    assert set(problems) == {others[0].name}
    assert [wrong(light, model[1]) for light in others[1:]] == [[]] * 3
    others[0].boot()
    assert go(model[1], [one], others[:1])[0] == {}
    assert wrong(others[0], model[1]) == []


def test_a_host_without_room_is_refused_and_the_others_get_theirs(net: Net, model: tuple[Path, dict[str, Any]]) -> None:
    one, *others = net.hosts
    put(one, *model)

    problems, _ = go(model[1], [one], others[:2], Ways(stall_s=6, deadline_s=60, reserve_bytes=10**17))

    assert set(problems) == {light.name for light in others[:2]}
    assert all("must stay free" in text for text in problems.values())


@pytest.mark.parametrize("engine", ["swarm", "rsync"])
def test_a_disk_that_fills_up_on_the_way_fails_that_host_and_it_goes_on_later(
    net: Net, model: tuple[Path, dict[str, Any]], engine: str
) -> None:
    one, full, other = net.hosts[:3]
    put(one, *model)
    disk = Paths(full.root).incoming
    disk.mkdir(parents=True)
    # Its processes have mounts of their own, which are those of the time when they began.
    full.power_off()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True, timeout=10)
    full.boot()
    ways = Ways(distribution=engine, stall_s=6, deadline_s=90, limit_bytes_s=4e6)  # type: ignore[arg-type]

    def fill() -> None:
        """Somebody else takes the room while it comes."""
        while shutil.disk_usage(disk).used < 1_000_000:
            gevent.sleep(0.05)
        with suppress(OSError):
            (disk / "filler").write_bytes(bytes(40_000_000))

    try:
        filling = gevent.spawn(fill)
        problems, _ = go(model[1], [one], [full, other], ways)
        filling.kill()

        assert set(problems) == {full.name}
        assert "No space left" in problems[full.name]
        assert wrong(other, model[1]) == []
        assert wrong(full, model[1]) != []
        (disk / "filler").unlink()
        assert go(model[1], [one], [full], ways)[0] == {}
        assert wrong(full, model[1]) == []
    finally:
        full.power_off()
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


def test_without_aria2_somewhere_it_goes_by_rsync_and_says_so(
    net: Net, model: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *others = net.hosts
    put(one, *model)
    call = Light.call

    def without(light: Light, arguments: Any, stdin: str | None = None, timeout_s: int | None = None) -> Any:
        answer = call(light, arguments, stdin, timeout_s)
        if light is others[0] and arguments[:2] == ["sync", "look"]:
            document = {**json.loads(answer.stdout), "tools": ["rsync"]}
            return type(answer)(answer.ok, json.dumps(document), answer.stderr)
        return answer

    monkeypatch.setattr(Light, "call", without)

    problems, lines = go(model[1], [one], others[:2])

    assert problems == {}
    assert any("aria2c is not installed, so this goes by rsync and slower; apt install aria2" in line for line in lines)


def test_a_host_outside_the_chosen_network_is_named(net: Net, model: tuple[Path, dict[str, Any]]) -> None:
    one, other = net.hosts[:2]
    put(one, *model)

    problems, _ = go(model[1], [one], [other], Ways(subnet="192.168.100.0/24", deadline_s=60))

    assert problems == {other.name: "no host that has it can be reached"}

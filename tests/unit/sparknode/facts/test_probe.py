"""The probe: one document, complete in shape on any host, without serial numbers, within one deadline."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparknode.base import locks
from sparknode.base.process import Completed
from sparknode.base.shape import written
from sparknode.base.system import Host
from sparknode.facts.collect import COMMANDS, DEADLINE_S
from sparknode.facts.facts import Facts
from sparknode.facts.probe import facts, probe
from sparknode.host.node_status import report as status
from sparknode.state import journal, orders
from sparknode.state.orders import Order
from tests.bundles import bundle
from tests.unit.sparknode.builders import COMMIT, REPO, release
from tests.unit.sparknode.world import World

FIXTURES = Path(__file__).parents[3] / "fixtures"
OLD, NEW = release("old"), release("new")
KEYS = set(written(facts(bundle())))


class Answering(World):
    """A node on which programs answer what a test says."""

    answers: dict[str, Completed]

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        found = next((done for name, done in self.answers.items() if " ".join(argv).startswith(name)), None)
        return found or super().run(argv, timeout)


def answering(root: Path, **answers: str) -> Answering:
    world = Answering(root)
    world.answers = {}
    for name, text in answers.items():
        command = name.replace("__", "-").replace("_", " ")
        world.answers[command] = Completed(tuple(command.split()), 0, text)
    return world


TAKEN = {"uname", "disk", "processes", "packages", "kernels", "clock", "firmware", "docker-group"}


def spark(root: Path) -> Answering:
    """A GB10 as it is seen in the field."""
    (root / "etc").mkdir(parents=True)
    (root / "etc/dgx-release").write_text((FIXTURES / "gb10/dgx-release.asus.txt").read_text())
    (root / "etc/os-release").write_text('ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.5 LTS"\n')
    info = {"ServerVersion": "29.2.1", "DockerRootDir": "/var/lib/docker", "Driver": "overlay2"}
    tags = [None, [], ["<none>:<none>"], ["registry.example/engine:latest", NEW["image"]["reference"]]]
    images = [{"RepoTags": names, "Id": NEW["image"]["image_ids"][0]} for names in tags]
    world = answering(
        root,
        **{done.argv[0].replace("-", "__"): done.stdout for name, done in bundle().commands.items() if name in TAKEN},
        **{"dockerd_GET_/info": json.dumps(info), "dockerd_GET_/images/json": json.dumps(images)},
        nvidia__smi___q="GSP Firmware Version : 580.178.04\n",
        nvidia__smi___query__compute="",
        nvidia__smi="NVIDIA GB10, 12.1, 580.178.04, 38, 4.21, 208, 0, [N/A], [N/A]\n",
        **{"sh -c for": bundle().commands["programs"].stdout, "sh -c dmesg": ""},
        nvidia__ctk_cdi=(FIXTURES / "gb10/nvidia-ctk-cdi-list.txt").read_text(),
        nvidia__ctk="NVIDIA Container Toolkit CLI version 1.20.1\n",
        ss='LISTEN 0 2048 0.0.0.0:8000 0.0.0.0:* users:(("vllm",pid=123,fd=12))\n',
    )
    world.other_units = bundle().commands["units"].stdout.partition("\n\n")[2]
    return world


def test_the_document_of_a_spark(tmp_path: Path) -> None:
    world = spark(tmp_path)
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)

    document = probe(world.host)

    assert Facts.read(json.loads(json.dumps(document))).gpu.devices[0].name == "NVIDIA GB10"
    assert document["gpu"]["devices"][0]["name"] == "NVIDIA GB10"
    assert document["host"]["dgx"]["ota_version"] == "7.6.0"
    ubuntu = {"id": "ubuntu", "id_like": None, "version_id": "24.04", "pretty_name": "Ubuntu 24.04.5 LTS"}
    assert document["host"]["os"] == ubuntu
    assert document["docker"]["server_version"] == "29.2.1"
    assert document["injection"]["cdi_devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
    assert document["injection"]["toolkit_version"] == "1.20.1"
    assert document["listening"] == [{"port": 8000, "process": "vllm", "pid": 123}]
    assert document["memory"]["total_kib"] == 127_535_224
    assert [entry["path"] for entry in document["disk"]] == ["/var/lib/docker", "/var/lib/sparkfleet"]
    fleet = document["fleet"]
    assert fleet["releases"] == sorted([OLD["id"], NEW["id"]])
    assert (fleet["current"], fleet["previous"], fleet["verified"]) == (OLD["id"], None, OLD["id"])
    assert fleet["serving"]["release"] == OLD["id"]
    assert fleet["serving"]["drift"] == []
    assert fleet["release"]["image_tag"] == "old"
    assert fleet["models"] == [{"repo": REPO, "commit": COMMIT}]
    assert fleet["images"] == [NEW["image"]["reference"]]
    assert document["unreadable"] == []


def test_no_serial_number_and_no_hardware_uuid_leaves_the_node(tmp_path: Path) -> None:
    text = json.dumps(probe(spark(tmp_path).host))

    assert "S0000000000000" not in text
    assert "GPU-0000" not in text


def test_a_bare_host_has_the_whole_shape_and_says_what_it_lacks(tmp_path: Path) -> None:
    world = answering(tmp_path)
    world.answers["dockerd"] = Completed(("dockerd",), 1, "", "/run/docker.sock: it is not there")
    world.paths.meminfo.unlink()

    document = probe(world.host)

    assert set(document) == KEYS
    assert Facts.read(json.loads(json.dumps(document))).gpu.first is None
    assert document["gpu"]["devices"] == []
    assert document["gpu"]["error"] == "`nvidia-smi` is not installed here, or may not be run"
    assert document["fleet"]["serving"] is None
    assert {"what": "memory", "why": "/proc/meminfo names no total"} in document["unreadable"]
    assert {"gpu", "docker", "cdi", "toolkit", "ports"} <= {entry["what"] for entry in document["unreadable"]}


def test_drift_is_told(tmp_path: Path) -> None:
    world = spark(tmp_path)
    world.stage(OLD)
    world.serve(OLD)
    assert world.container is not None
    world.container["Args"].append("--enforce-eager")

    serving = probe(world.host)["fleet"]["serving"]

    assert serving["release"] is None
    assert serving["drift"] == ["arguments: the container has ['--enforce-eager'] where the release has nothing"]


def test_an_image_under_a_releases_name_is_told_before_a_start_takes_it(tmp_path: Path) -> None:
    name, digest = OLD["image"]["reference"], OLD["image"]["digest"]
    world = spark(tmp_path)
    world.stage(OLD)
    world.serve(OLD)
    listed = json.dumps([{"RepoTags": [name], "Id": "sha256:0ther"}])
    world.answers["dockerd GET /images/json"] = Completed((), 0, listed)
    world.images[name] = {"Id": "sha256:0ther", "RepoDigests": [f"mirror/engine@{digest}"]}
    # The other image store's id; the digest says that it is the same image.
    assert probe(world.host)["fleet"]["images"] == [name]

    world.images[name]["RepoDigests"] = []
    fleet = probe(world.host)["fleet"]

    assert fleet["images"] == []
    assert fleet["serving"]["drift"] == [
        f"image: the name {name} stands for sha256:0ther, the release has {OLD['image']['image_ids'][0]}"
    ]


def test_a_unit_that_is_stopped_is_told(tmp_path: Path) -> None:
    world = spark(tmp_path)
    world.stage(OLD)
    world.serve(OLD)
    world.power_cut()

    serving = probe(world.host)["fleet"]["serving"]

    assert serving["unit"] == "inactive"
    assert serving["drift"] == [
        "unit: it is inactive, expected active",
        "container sparkfleet-serve: there is none",
    ]


def test_an_activation_under_way_and_one_whose_worker_is_gone(tmp_path: Path) -> None:
    world = spark(tmp_path)
    record = {"t": "2026-11-23T10:00:00.000Z", "activation": "a", "release": NEW["id"], "state": "starting"}
    journal.append(world.paths, record)
    assert status(world.host)["activation"] is None, "without an order it has ended, whatever the journal could hold"
    orders.place(world.paths, Order(NEW["id"], "r1", "ops@desk", activation="a"))

    with locks.hold(world.paths):
        alive = status(world.host)["activation"]
    dead = status(world.host)["activation"]

    assert (alive["release"], alive["state"], alive["alive"]) == (NEW["id"], "starting", True)
    assert dead["alive"] is False


def test_the_last_outcome_has_its_figures(tmp_path: Path) -> None:
    world = spark(tmp_path)
    base = {"t": "2026-11-23T10:00:00.000Z", "activation": "a", "release": NEW["id"], "from": OLD["id"]}
    gate = {"name": "acceptance-short", "figure": 0.589, "threshold": 0.3, "unit": "ratio", "verdict": "pass"}
    journal.append(world.paths, {**base, "state": "probing", "gate": gate})
    journal.append(world.paths, {**base, "state": "committed", "load_s": 61.0})

    last = status(world.host)["last"]

    assert last["figures"]["acceptance-short"]["figure"] == 0.589
    assert (last["state"], last["load_s"], last["error"]) == ("committed", 61.0, None)


def test_a_model_that_lost_a_file_is_not_listed(tmp_path: Path) -> None:
    world = spark(tmp_path)
    world.stage(OLD)
    (world.paths.model_dir(REPO, COMMIT) / "config.json").unlink()

    assert status(world.host)["models"] == []


def test_all_programs_are_asked_at_once(tmp_path: Path) -> None:
    """Each waits for all the others: asked one after another, nobody would ever answer."""
    everyone = threading.Barrier(len(COMMANDS), timeout=20.0)

    class Hung(World):
        def run(self, argv: Sequence[str], timeout: float) -> Completed:
            if tuple(argv) in COMMANDS.values():
                everyone.wait()
            return Completed(tuple(argv), None, timeout=timeout)

    document = probe(Hung(tmp_path).host)

    assert document["gpu"]["error"].startswith("`nvidia-smi --query-gpu=name,")
    assert document["gpu"]["error"].endswith(f"did not answer within {DEADLINE_S:.0f} s")
    assert set(COMMANDS) <= {entry["what"] for entry in document["unreadable"]}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    answers=st.lists(
        st.tuples(st.none() | st.integers(0, 255), st.text(max_size=30), st.text(max_size=30)),
        min_size=len(COMMANDS),
        max_size=len(COMMANDS),
    )
)
def test_no_answer_of_any_program_makes_the_probe_raise(tmp_path: Path, answers: list[tuple[Any, str, str]]) -> None:
    left = list(answers)

    class Odd(World):
        def run(self, argv: Sequence[str], timeout: float) -> Completed:
            rc, out, err = left.pop() if left else (1, "", "")
            return Completed(tuple(argv), rc, out, err, timeout)

    document = probe(Host(Odd(tmp_path).paths, Odd(tmp_path)))

    assert set(document) == KEYS
    Facts.read(json.loads(json.dumps(document)))


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"\xff\xfe"), lambda path: path.mkdir(parents=True)])
def test_odd_files_make_nothing_raise(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    world = spark(tmp_path)
    for name in ("etc/dgx-release", "etc/os-release", "proc/uptime", "var/lib/sparkfleet/journal.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        spoil(path)

    assert set(probe(world.host)) == KEYS


def test_of_every_unit_it_is_asked_what_is_read_of_it() -> None:
    asked = {word.partition("=")[2] for word in COMMANDS["units"] if word.startswith("--property=")}
    assert {"LoadState", "ActiveState", "SubState", "Result", "NRestarts", "UnitFileState", "Job", "Names"} <= asked

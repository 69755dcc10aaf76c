"""The image of a release: room for it, what it is, who may pull it, and how it comes from another host."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sparknode.base.process import Completed
from sparknode.errors import Failed
from sparknode.models import saved
from sparknode.models.stage import save_image
from tests.unit.sparknode.builders import write_model
from tests.unit.sparknode.models.test_stage import DOCUMENT, IMAGE, SOURCE, incoming, run
from tests.unit.sparknode.world import World, archive_of

REFERENCE = DOCUMENT["image"]["reference"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    write_model(incoming(made))
    made.images[SOURCE] = {**IMAGE, "Config": {"Entrypoint": ["bash"]}}
    (tmp_path / "var/lib/docker").mkdir(parents=True)
    return made


def test_an_image_that_docker_has_no_room_for_is_refused_before_it_is_pulled(world: World) -> None:
    with pytest.raises(Failed, match=r"var/lib/docker: .* GB are free, the image needs .* packed and unpacked"):
        run(world, image_bytes={"graphdriver": 10**18, "containerd": 0})
    assert not [command for command in world.commands if "pull" in command]


def test_an_image_with_another_entrypoint_is_not_taken(world: World) -> None:
    with pytest.raises(Failed, match=r"its entrypoint is \['bash'\], the lock has \['vllm'\]"):
        run(world, image_entrypoint=["vllm"])
    assert REFERENCE not in world.images
    run(world, image_entrypoint=["bash"])
    assert REFERENCE in world.images


def test_digest_and_id_are_both_told(world: World) -> None:
    lines = run(world)
    assert any(f"digest {DOCUMENT['image']['digest']}, id {IMAGE['Id']}" in line for line in lines)


def test_credentials_are_in_no_command_line_and_do_not_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = base64.b64encode(b"user:password").decode()
    seen: list[tuple[Path, str]] = []
    stream = World.stream

    def watched(self: World, argv: Sequence[str], timeout: float, on_line: Callable[[str], None]) -> Completed:
        config = Path(argv[argv.index("--config") + 1]) / "config.json"
        assert config.stat().st_mode & 0o777 == 0o600
        seen.append((config, config.read_text()))
        return stream(self, argv, timeout, on_line)

    monkeypatch.setattr(World, "stream", watched)

    lines = run(world, image_auth=auth)

    ((config, text),) = seen
    assert json.loads(text) == {"auths": {"mirror:5000": {"auth": auth}}}
    assert not config.exists()
    assert not [command for command in world.commands if auth in " ".join(command)]
    assert auth not in "".join(lines)


def test_docker_looks_for_the_hubs_credentials_under_a_name_of_its_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def watched(_world: World, argv: Sequence[str], *_: object) -> Completed:
        seen.append((Path(argv[argv.index("--config") + 1]) / "config.json").read_text())
        return Completed(tuple(argv), 1, "", "refused")

    monkeypatch.setattr(World, "stream", watched)
    with pytest.raises(Failed):
        run(world, image_source=f"docker.io/vllm/vllm-openai@sha256:{'0' * 64}", image_auth="dTpw")
    assert json.loads(seen[0]) == {"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}


def test_an_image_goes_from_one_host_to_another_without_the_registry(world: World, tmp_path: Path) -> None:
    lines: list[str] = []
    request = json.dumps({"schema": 1, "release": DOCUMENT, "image_source": SOURCE, "manifests": []})
    assert save_image(world.host, request, lines.append) == 0
    manifest = json.loads(lines[-1])
    assert save_image(world.host, request, lines.append) == 0
    assert json.loads(lines[-1]) == manifest
    other = World(tmp_path / "other")
    write_model(incoming(other))
    saved = world.paths.model_dir(manifest["repo"], manifest["commit"])
    shutil.copytree(saved, other.paths.incoming_dir(manifest["repo"], manifest["commit"]))

    run(other)

    assert other.images[REFERENCE]["Id"] == IMAGE["Id"]
    assert not [command for command in other.commands if "pull" in command]
    assert not [path for path in other.paths.incoming.rglob("*") if path.is_file()]


def test_what_came_and_is_another_image_is_pulled_instead(world: World) -> None:
    folder = world.paths.incoming_dir("sparkfleet/image", DOCUMENT["image"]["digest"][7:47])
    folder.mkdir(parents=True)
    archive_of(folder / "image.tar", {REFERENCE: {**IMAGE, "Id": "sha256:ff"}})

    lines = run(world)

    assert any("it is not the pinned image (sha256:ff); pulling it instead" in line for line in lines)
    assert world.images[REFERENCE]["Id"] == IMAGE["Id"]


def test_an_image_that_docker_has_in_part_is_given_to_nobody(world: World) -> None:
    world.images[REFERENCE] = {**IMAGE, "Architecture": ""}
    request = json.dumps({"schema": 1, "release": DOCUMENT, "image_source": SOURCE, "manifests": []})
    with pytest.raises(Failed, match=r"runs here and can't be given to other hosts: Docker's store lacks layer of it"):
        save_image(world.host, request, lambda _: None)
    assert not [path for path in world.paths.data.rglob("*.tar") if path.is_file()]


def test_what_came_in_part_is_not_loaded_and_pulled_instead(world: World) -> None:
    folder = world.paths.incoming_dir("sparkfleet/image", DOCUMENT["image"]["digest"][7:47])
    folder.mkdir(parents=True)
    archive_of(folder / "image.tar", {REFERENCE: IMAGE}, layers=())

    lines = run(world)

    assert any("what came from another host lacks layer; pulling it instead" in line for line in lines)
    assert not [command for command in world.commands if command[:2] == ("docker", "load")]
    assert world.images[REFERENCE]["Id"] == IMAGE["Id"]


def entries(*names: str, listed: object) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in {**dict.fromkeys(names, b""), "manifest.json": json.dumps(listed).encode()}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def of(config: str, *layers: str) -> list[dict[str, object]]:
    return [{"Config": config, "RepoTags": [REFERENCE], "Layers": list(layers)}]


OCI, FORMER = of("blobs/sha256/c0", "blobs/sha256/01", "blobs/sha256/02"), of("c0.json", "01/layer.tar")


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (entries("blobs/sha256/c0", "blobs/sha256/01", "blobs/sha256/02", listed=OCI), []),
        (entries("c0.json", "01/VERSION", "01/layer.tar", listed=FORMER), []),
        (entries("blobs/sha256/c0", listed=OCI), ["blobs/sha256/01", "blobs/sha256/02"]),
        (entries("blobs/sha256/01", "blobs/sha256/02", listed=OCI), ["blobs/sha256/c0"]),
        (entries("c0.json", "01/VERSION", listed=FORMER), ["01/layer.tar"]),
        (entries("c0.json", listed=[]), ["a list of its parts"]),
        (entries("c0.json", listed=[{}]), ["a list of its parts ('Config')"]),
        (b"no archive", ["a list of its parts (truncated header)"]),
        (b"", ["a list of its parts (empty file)"]),
    ],
)
def test_an_archive_holds_what_it_names(tmp_path: Path, content: bytes, missing: list[str]) -> None:
    (tmp_path / "image.tar").write_bytes(content)
    assert saved.lacking(tmp_path / "image.tar") == missing


def test_a_registry_that_is_down_is_a_clear_failure_and_nothing_is_staged(world: World) -> None:
    del world.images[SOURCE]
    with pytest.raises(Failed, match="is the registry reachable from this host"):
        run(world)
    assert not world.paths.releases.exists()


def test_an_image_that_docker_lost_half_of_is_pulled_again(world: World) -> None:
    world.images[REFERENCE] = {**IMAGE, "Id": "sha256:half"}
    run(world)
    assert world.images[REFERENCE]["Id"] == IMAGE["Id"]


def test_an_image_that_finds_no_room_as_a_file_is_said_and_saved_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = json.dumps({"schema": 1, "release": DOCUMENT, "image_source": SOURCE, "manifests": []})
    run_there = World.run

    def full(self: World, argv: Sequence[str], timeout: float) -> Completed:
        if tuple(argv[:2]) != ("docker", "save"):
            return run_there(self, argv, timeout)
        Path(argv[3]).write_bytes(b"half")
        return Completed(tuple(argv), 1, "", "write image.tar: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(World, "run", full)
        with pytest.raises(Failed, match=r"can't be saved: .* no space left on device; set image_distribution to pull"):
            save_image(world.host, request, lambda _: None)
    assert not world.paths.models.exists()

    lines: list[str] = []
    assert save_image(world.host, request, lines.append) == 0
    manifest = json.loads(lines[-1])
    assert (world.paths.model_dir(manifest["repo"], manifest["commit"]) / "image.tar").read_bytes() != b"half"

"""Staging: proven or refused, in one step, and a second time nothing."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.locks import hold_file
from sparknode.errors import Busy, Failed, Refused
from sparknode.models.stage import stage
from sparknode.state.releases import load
from tests.unit.sparknode.builders import (
    COMMIT,
    FILES,
    REPO,
    manifest,
    point,
    put_release,
    release,
    sealed,
    write_model,
)
from tests.unit.sparknode.world import World

DOCUMENT = release("new")
SOURCE = f"mirror:5000/engine@{DOCUMENT['image']['digest']}"
IMAGE = {"Id": DOCUMENT["image"]["image_ids"][0], "Architecture": "arm64", "RepoDigests": []}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A node to which the files were sent, with the image in the registry."""
    made = World(tmp_path)
    write_model(incoming(made))
    made.images[SOURCE] = dict(IMAGE)
    return made


def incoming(world: World) -> Path:
    return world.paths.data / "incoming" / REPO / COMMIT


def in_place(world: World) -> Path:
    return world.paths.data / "models" / REPO / COMMIT


def run(world: World, document: dict[str, Any] = DOCUMENT, **changes: Any) -> list[str]:
    lines: list[str] = []
    request = {"schema": 1, "release": document, "image_source": SOURCE, "manifests": [manifest()], **changes}
    assert stage(world.host, json.dumps(request), lines.append) == 0
    return lines


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    found = {str(path): path.lstat() for path in root.rglob("*")}
    return {path: (info.st_ino, info.st_mtime_ns) for path, info in found.items()}


def test_a_release_is_staged_with_its_model_and_its_image(world: World) -> None:
    lines = run(world)

    assert in_place(world).is_dir()
    assert not incoming(world).exists()
    assert DOCUMENT["image"]["reference"] in world.images
    folder = world.paths.release_dir(DOCUMENT["id"])
    assert json.loads((folder / "release.json").read_text()) == DOCUMENT
    assert (folder / "sparkfleet-serve.service").read_text() == DOCUMENT["unit"]
    assert lines[-2:] == [
        f"proof: release {DOCUMENT['id']} is complete here",
        "proof: no release is verified here yet, so there is none to roll back to",
    ]


def test_a_release_is_kept_as_it_was_sent_with_keys_that_are_newer(world: World) -> None:
    newer = sealed({**DOCUMENT, "serve": {**DOCUMENT["serve"], "newer": [1]}})
    run(world, newer)

    assert json.loads((world.paths.release_dir(newer["id"]) / "release.json").read_text()) == newer
    assert load(world.paths, newer["id"]).id == newer["id"]


def test_a_model_in_place_is_read_only(world: World) -> None:
    run(world)

    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [in_place(world), *in_place(world).rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o555}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o444}


def test_a_second_time_changes_nothing(world: World) -> None:
    run(world)
    before = snapshot(world.paths.data)
    world.commands.clear()

    lines = run(world)

    assert snapshot(world.paths.data) == before
    assert [line for line in lines if "already staged" in line] == [
        f"model {REPO}@{COMMIT[:12]}: already staged (3 files)",
        f"image {DOCUMENT['image']['reference']}: already staged",
        f"release {DOCUMENT['id']}: already staged",
    ]
    assert not [command for command in world.commands if command[1] in {"pull", "tag"}]


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def link(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/hostname")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 700\n"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip, "model.safetensors: sha256 "),
    "short": (lambda folder: (folder / "model.safetensors").write_bytes(b"w"), "1 bytes, expected 700"),
    "missing": (lambda folder: (folder / "sub/tokenizer.json").unlink(), "sub/tokenizer.json: it is missing"),
    "extra": (lambda folder: (folder / "x.incomplete").write_bytes(b""), "x.incomplete: it is not in the manifest"),
    "link": (link, "config.json: it is a symbolic link, expected a plain file"),
    "pointer": (
        lambda folder: (folder / "model.safetensors").write_bytes(POINTER),
        "it is a Git LFS pointer, not the file itself",
    ),
    "git blob": (
        lambda folder: (folder / "config.json").write_bytes(b'{"model_type": "gemma5"}'),
        "config.json: sha1 ",
    ),
    "pipe": (lambda folder: os.mkfifo(folder / "pipe"), "pipe: it is not in the manifest"),
    "linked folder": (lambda folder: (folder / "more").symlink_to("/etc"), "more: it is not in the manifest"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_not_the_manifest_are_never_put_in_place(world: World, damage: str) -> None:
    spoil, message = DAMAGES[damage]
    spoil(incoming(world))

    with pytest.raises(Failed, match="is not the manifest: ") as raised:
        run(world)

    assert message in str(raised.value)
    assert not in_place(world).exists()
    assert not world.paths.releases.exists()


def test_files_that_were_not_sent_are_asked_for(world: World) -> None:
    incoming(world).rename(world.root / "elsewhere")

    with pytest.raises(Failed, match=r"neither .* is there; send the files to .*/incoming/acme/tiny-model"):
        run(world)


def test_a_model_in_place_without_its_proof_is_hashed_again(world: World) -> None:
    run(world)
    world.paths.model_stamp(REPO, COMMIT).unlink()

    lines = run(world)

    assert any(line.startswith(f"model {REPO}@{COMMIT[:12]}: the files in place are verified") for line in lines)
    assert world.paths.model_stamp(REPO, COMMIT).exists()


def test_a_damaged_model_in_place_is_said_and_replaced_by_what_is_sent(world: World) -> None:
    run(world)
    file = in_place(world) / "model.safetensors"
    file.chmod(0o644)
    file.write_bytes(b"w")

    with pytest.raises(Failed, match=r"is damaged: model.safetensors: 1 bytes, expected 700"):
        run(world)

    write_model(incoming(world))
    run(world)
    assert file.read_bytes() == FILES["model.safetensors"]
    assert not in_place(world).with_name(f"{COMMIT}.damaged").exists()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({**IMAGE, "Architecture": "amd64"}, "its architecture is amd64, expected arm64"),
        ({**IMAGE, "Id": "sha256:ff"}, "its id is sha256:ff, expected sha256:c0"),
    ],
)
def test_an_image_that_is_not_the_pinned_one_is_not_tagged(world: World, image: dict[str, Any], message: str) -> None:
    world.images[SOURCE] = image

    with pytest.raises(Failed, match=message):
        run(world)

    assert DOCUMENT["image"]["reference"] not in world.images


def test_an_image_of_another_store_is_known_by_its_digest(world: World) -> None:
    digest = DOCUMENT["image"]["digest"]
    world.images[SOURCE] = {**IMAGE, "Id": "sha256:ff", "RepoDigests": [f"mirror:5000/engine@{digest}"]}

    run(world)

    assert world.images[DOCUMENT["image"]["reference"]]["Id"] == "sha256:ff"


def test_a_local_tag_on_another_image_is_moved(world: World) -> None:
    world.images[DOCUMENT["image"]["reference"]] = {**IMAGE, "Id": "sha256:ff"}

    run(world)

    assert world.images[DOCUMENT["image"]["reference"]]["Id"] == IMAGE["Id"]


def test_a_pull_that_fails_says_what_docker_said(world: World) -> None:
    del world.images[SOURCE]

    with pytest.raises(Failed, match=r"ended with 1: manifest unknown; is the registry reachable"):
        run(world)


def test_pulling_is_told_line_by_line(world: World) -> None:
    assert "  4f4fb700ef54: Pulling fs layer" in run(world)


@pytest.mark.parametrize(
    "said",
    [
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
        "docker: Error response from daemon: unknown or invalid runtime name: nvidia",
        "docker: Error response from daemon: failed to discover GPU vendor from CDI: no known GPU vendor found",
        "docker: CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all",
        "Failed to initialize NVML: Unknown Error",
    ],
)
def test_a_gpu_that_does_not_reach_a_container_stops_the_stage(world: World, said: str) -> None:
    world.run_said = said
    with pytest.raises(Failed, match=r"gpu\.container in docs/preflight\.md") as caught:
        run(world)
    assert said.rsplit(": ", 1)[-1] in str(caught.value)
    assert DOCUMENT["id"] not in world.paths.staged()


def test_the_gpu_is_asked_for_as_the_release_does(world: World) -> None:
    run(world)
    (asked,) = [command for command in world.commands if command[:2] == ("docker", "run")]
    gpu = DOCUMENT["container"].get("gpu", [])
    assert asked == ("docker", "run", "--rm", *gpu, "--entrypoint", "nvidia-smi", DOCUMENT["image"]["reference"], "-L")


def test_staging_ends_with_proof_of_the_way_back(world: World) -> None:
    old = release("old")
    put_release(world.paths, old)
    point(world.paths, "verified", old["id"])

    with pytest.raises(Failed, match=f"the release to roll back to, {old['id']} is not complete here: image "):
        run(world)

    world.images[old["image"]["reference"]] = {"Id": old["image"]["image_ids"][0]}
    assert run(world)[-1] == f"proof: the release to roll back to, {old['id']}, is complete here"


def other_manifest() -> dict[str, Any]:
    return manifest({"config.json": b"{}"})


def bad_path(path: str) -> dict[str, Any]:
    entry = {"path": path, "size": 1, "sha256": "0" * 64, "git_blob_sha1": None}
    return {"repo": REPO, "commit": COMMIT, "files": [entry]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, r"stage request\.schema: found 2"),
        ({"manifests": []}, "no manifest for acme/tiny-model@a"),
        ({"manifests": [other_manifest()]}, "make lock and release together again"),
        ({"manifests": [bad_path("../../etc/passwd")]}, "expected a plain path inside the repository"),
        ({"manifests": [bad_path("/etc/passwd")]}, "expected a plain path inside the repository"),
        ({"manifests": [bad_path("a//b")]}, "expected a plain path inside the repository"),
        ({"manifests": [{"repo": "../x", "commit": COMMIT, "files": []}]}, "expected ORG/NAME"),
        ({"manifests": [{"repo": REPO, "commit": COMMIT, "files": []}]}, "found an empty list"),
        ({"image_source": None}, r"stage request\.image_source: found null"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_done(
    world: World, changes: dict[str, Any], message: str
) -> None:
    before = snapshot(world.paths.data)

    with pytest.raises(Refused, match=message):
        run(world, **changes)

    assert snapshot(world.paths.data) == before
    assert world.commands == []


def test_a_release_folder_that_was_edited_is_written_again(world: World) -> None:
    run(world)
    unit = world.paths.release_dir(DOCUMENT["id"]) / "sparkfleet-serve.service"
    unit.write_text("edited")

    lines = run(world)

    assert unit.read_text() == DOCUMENT["unit"]
    assert f"release {DOCUMENT['id']}: sparkfleet-serve.service written again" in lines


def test_what_a_request_says_twice_is_refused(world: World) -> None:
    double = manifest()
    double["files"].append(double["files"][0])

    with pytest.raises(Refused, match="a path is listed twice"):
        run(world, manifests=[double])


def test_an_altered_release_is_refused(world: World) -> None:
    altered = {**sealed(DOCUMENT), "profile": "production"}

    with pytest.raises(Refused, match="the document was altered"):
        run(world, altered)


def test_two_that_stage_one_release_at_once_both_find_it_in_place(tmp_path: Path) -> None:
    """Without a lock the second one moved the first one's model aside, and the first one removed it."""
    for pair in range(20):
        world = World(tmp_path / str(pair))
        write_model(incoming(world))
        world.images[SOURCE] = dict(IMAGE)
        world.on_sleep = lambda: time.sleep(0.001)
        with ThreadPoolExecutor(2) as both:
            for lines in both.map(lambda _, world=world: run(world), range(2)):
                assert any(line.startswith("proof: release") for line in lines)
        assert all((in_place(world) / name).read_bytes() == data for name, data in FILES.items())


def test_whoever_waits_is_told_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparknode.models.stage.STORE_S", 60.0)
    world = World(tmp_path)
    write_model(incoming(world))
    world.images[SOURCE] = dict(IMAGE)
    lines: list[str] = []
    request = {"schema": 1, "release": DOCUMENT, "image_source": SOURCE, "manifests": [manifest()]}
    busy = pytest.raises(Busy, match=r"fetching acme/tiny \(pid \d+, since .*\) is under way on this host")
    with busy, hold_file(world.paths.store_lock, "fetching acme/tiny"):
        stage(world.host, json.dumps(request), lines.append)
    assert lines[0].startswith("waiting: fetching acme/tiny (pid ")
    assert world.clock == pytest.approx(60.0)

"""An image written by hand is read back as any registry client would read it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.lab import ocilayout, realengine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/tool").write_text("#!/bin/sh\n")
    (folder / "usr/bin/tool").chmod(0o755)
    (folder / "bin").symlink_to("usr/bin")
    (folder / "secret").write_text("not for the image")
    for path in folder.rglob("*"):
        os.utime(path, (1.5e9, 1.5e9 + 0.25), follow_symlinks=False)
    return folder


def test_a_layer_holds_what_was_wanted_and_is_named_by_its_hashes(tmp_path: Path, root: Path) -> None:
    layout = tmp_path / "layout"
    layer = ocilayout.pack_layer(layout, root, lambda path: path != "secret")
    blob = layout / "blobs" / layer.digest.replace(":", "/")
    assert layer.size == blob.stat().st_size
    assert layer.digest == "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest()
    assert layer.diff_id == "sha256:" + hashlib.sha256(gzip.decompress(blob.read_bytes())).hexdigest()
    with tarfile.open(blob) as tar:
        assert tar.getnames() == ["bin", "usr", "usr/bin", "usr/bin/tool"]
        assert tar.getmember("bin").linkname == "usr/bin"
        assert tar.getmember("usr/bin/tool").mode == 0o755
        assert tar.getmember("usr/bin/tool").mtime == 1_500_000_000


def test_the_same_files_give_the_same_image(tmp_path: Path, root: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        layers = [ocilayout.pack_layer(tmp_path / name, root, lambda _: True)]
        digests.add(ocilayout.write_image(tmp_path / name, "1", layers, {"Entrypoint": ["/bin/bash"]}))
    assert len(digests) == 1


def test_the_index_leads_to_every_blob(tmp_path: Path, root: Path) -> None:
    layout = tmp_path / "layout"
    digest = ocilayout.write_image(layout, "1", [ocilayout.pack_layer(layout, root, lambda _: True)], {})
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "1"}
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    for blob in (manifest["config"], *manifest["layers"]):
        assert (layout / "blobs" / blob["digest"].replace(":", "/")).stat().st_size == blob["size"]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("usr", "debian"),
        ("proc", "debian"),
        ("proc/1", None),
        ("usr/local/bin/vllm", "engine"),
        (f"{realengine.MODULES}", "debian"),
        (f"{realengine.MODULES}/vllm/__init__.py", "engine"),
        (f"{realengine.MODULES}/torch/lib/libtorch_cpu.so", "torch"),
        (f"{realengine.MODULES}/torch-2.13.0+cpu.dist-info/METADATA", "torch"),
    ],
)
def test_each_path_of_the_engine_image_is_in_one_layer(path: str, part: str | None) -> None:
    assert realengine.part_of(path) == part

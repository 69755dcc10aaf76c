"""Writes an image as an OCI layout from a plain folder: what skopeo needs to push it, without a daemon."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

MEDIA = "application/vnd.oci.image"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The image is pushed over a bridge of this machine: time matters more than the last tenth of its size.
GZIP_LEVEL = 1


@dataclass(frozen=True)
class Layer:
    """A packed layer: its blob's digest and size, and the digest of the tar inside (its diff id)."""

    digest: str
    size: int
    diff_id: str


class _Hashing(io.RawIOBase):
    """Passes bytes on and hashes them on the way."""

    def __init__(self, sink: BinaryIO) -> None:
        self.sink = sink
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.size += len(data)
        self.sink.write(data)
        return len(data)


def pack_layer(layout: Path, root: Path, wanted: Callable[[str], bool]) -> Layer:
    """Pack the paths below ROOT that WANTED accepts (relative, without a leading slash) into one blob."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    partial = blobs / "layer.partial"
    with partial.open("wb") as file:
        packed = _Hashing(file)
        # No time stamp in the gzip header: the same files give the same blob.
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=GZIP_LEVEL, mtime=0, filename="") as zipped:
            plain = _Hashing(cast(BinaryIO, zipped))
            with tarfile.open(fileobj=cast(BinaryIO, plain), mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in _paths(root):
                    if wanted(path):
                        _add(tar, root / path, path)
    partial.rename(blobs / packed.hash.hexdigest())
    return Layer(f"sha256:{packed.hash.hexdigest()}", packed.size, f"sha256:{plain.hash.hexdigest()}")


def write_image(layout: Path, tag: str, layers: list[Layer], run_config: dict[str, Any]) -> str:
    """Write configuration, manifest and index for the packed layers; returns the manifest's digest."""
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": run_config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": _blob(layout, f"{MEDIA}.config.v1+json", config),
        "layers": [
            {"mediaType": f"{MEDIA}.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size} for layer in layers
        ],
    }
    entry = _blob(layout, f"{MEDIA}.manifest.v1+json", manifest)
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return str(entry["digest"])


def _blob(layout: Path, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _paths(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        base = Path(folder)
        for name in sorted([*folders, *files]):
            yield str((base / name).relative_to(root))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    if stat.S_ISSOCK(path.lstat().st_mode):
        return
    info = tar.gettarinfo(path, name)
    # Whole seconds are what a compiled Python module compares with its source.
    info.mtime = int(info.mtime)
    info.uname = info.gname = ""
    if info.isreg():
        with path.open("rb") as data:
            tar.addfile(info, data)
    else:
        tar.addfile(info)

"""What Docker's two image stores leave on a disk, made from the same layers, and a node that has them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparknode.base.process import Completed
from tests.unit.sparknode.world import World

BLOBS = "io.containerd.content.v1.content/blobs/sha256"


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(files: dict[str, bytes]) -> bytes:
    """A layer's tar: a folder, the files, a link and what removes a file of a lower layer."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("usr")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"usr/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("usr/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("usr/.wh.gone"))
    return packed.getvalue()


LAYERS = (layer({"one": b"1" * 700, "empty": b""}), layer({"two": b"2" * 512, "größe": b"3" * 5}))
CONFIG = json.dumps(
    {
        "architecture": "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(one) for one in LAYERS]},
    }
).encode()
PACKED = tuple(gzip.compress(one, mtime=0) for one in LAYERS)
_ROWS = [
    {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(p), "size": len(p)} for p in PACKED
]
_CONFIG_ROW = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(CONFIG), "size": len(CONFIG)}
MANIFEST = json.dumps({"schemaVersion": 2, "config": _CONFIG_ROW, "layers": _ROWS}).encode()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [
            {"digest": sha256(b"other"), "size": 5, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": sha256(MANIFEST), "size": len(MANIFEST), "platform": {"os": "linux", "architecture": "arm64"}},
        ],
    }
).encode()


def graphdriver(root: Path) -> None:
    """The image as overlay2 keeps it: layers unpacked, each with the record of its tar (as vbatts/tar-split)."""
    known = root / "image/overlay2"
    _put(known / "imagedb/content/sha256" / sha256(CONFIG)[7:], CONFIG)
    chain = ""
    for number, tar in enumerate(LAYERS):
        chain = sha256(f"{chain} {sha256(tar)}".encode()) if chain else sha256(tar)
        folder, files = known / "layerdb/sha256" / chain[7:], root / f"overlay2/cache{number}/diff"
        _put(folder / "cache-id", f"cache{number}".encode())
        rows: list[dict[str, Any]] = []
        at = 0
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                rows.append(_held(tar[at : member.offset_data], len(rows)))
                row = {"type": 1, "size": member.size, "payload": "AAAAAAAAAAA=", "position": len(rows)}
                raw = member.name.encode()
                named = {"name": member.name} if raw.isascii() else {"name_raw": base64.b64encode(raw).decode()}
                rows.append(
                    {**named, **row} if member.size else {**named, "type": 1, "payload": None, "position": len(rows)}
                )
                at = member.offset_data + member.size
                if member.isreg() and not member.name.endswith(".wh.gone"):
                    _put(files / member.name, tar[member.offset_data : at])
        rows.append(_held(tar[at:], len(rows)))
        record = "".join(json.dumps(row) + "\n" for row in rows).encode()
        _put(folder / "tar-split.json.gz", gzip.compress(record))


def _held(content: bytes, position: int) -> dict[str, Any]:
    return {"type": 2, "payload": base64.b64encode(content).decode(), "position": position}


def containerd(root: Path) -> None:
    """The image as containerd keeps it: every blob as the registry has it."""
    for blob in (CONFIG, *PACKED, MANIFEST, INDEX):
        _put(root / BLOBS / sha256(blob)[7:], blob)


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass
class SwitchedWorld(World):
    """A node whose Docker says which store it uses, and loads archives as that does."""

    store: str = "graphdriver"
    loaded: list[dict[str, bytes]] = field(default_factory=list)

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        command = tuple(argv)
        if command == ("dockerd", "GET", "/info"):
            status = [["driver-type", "io.containerd.snapshotter.v1"]] if self.store == "containerd" else []
            return Completed(command, 0, json.dumps({"ServerVersion": "28.5.2", "DriverStatus": status}))
        if command[0] == "sh" and "containerd config dump" in command[2]:
            return Completed(command, 0, 'root = "/var/lib/containerd"\n')
        if command[0] == "cat":
            path = self.root / command[1].lstrip("/")
            return Completed(command, 0, path.read_text()) if path.is_file() else Completed(command, 1)
        if command[:2] == ("docker", "load") and tarfile.is_tarfile(command[4]):
            self.commands.append(command)
            return Completed(command, 0) if self._load(Path(command[4])) else Completed(command, 1, "", "invalid tar")
        return super().run(argv, timeout)

    def _load(self, path: Path) -> bool:
        with tarfile.open(path) as archive:
            files = {one.name: stream.read() for one in archive if (stream := archive.extractfile(one))}
        self.loaded.append(files)
        if self.store == "graphdriver":
            (listed,) = json.loads(files["manifest.json"])
            layers = [
                gzip.decompress(one) if one[:2] == b"\x1f\x8b" else one
                for one in map(files.get, listed["Layers"])
                if one
            ]
            config = files[listed["Config"]]
            if [sha256(one) for one in layers] != json.loads(config)["rootfs"]["diff_ids"]:
                return False
            names, image_id = listed["RepoTags"], sha256(config)
        else:
            (row,) = json.loads(files["index.json"])["manifests"]
            manifest = files[f"blobs/{row['digest'].replace(':', '/')}"]
            names, image_id = [row["annotations"]["io.containerd.image.name"]], sha256(manifest)
            for name, content in files.items():
                if name.startswith("blobs/"):
                    _put(self.root / "var/lib/containerd" / BLOBS / name.rsplit("/", 1)[-1], content)
        found = {"Id": image_id, "Architecture": "arm64", "RepoDigests": [], "Config": {"Entrypoint": ["bash"]}}
        self.images |= dict.fromkeys(names, found)
        return True

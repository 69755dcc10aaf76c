"""An image out of the store that Docker does not use now, as a file that it loads into the one that it does.

A change of the store hides every image and leaves it on the disk. Both stores are read as plain files, named by what
they hold: containerd's has the blobs as they came, a graph driver's has each layer unpacked, with a record of its tar
file (github.com/vbatts/tar-split) that makes it anew to the byte. Every part is held against its digest.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sparknode.base.system import Host, Tell
from sparknode.errors import Failed
from sparknode.host.imagestore import BLOBS, CONTAINERD, Store
from sparknode.models import saved
from sparknode.state.release import Image, Release

OCI = "application/vnd.oci.image"
_BLOCK = 512


@dataclass(frozen=True)
class Part:
    """The configuration or a layer of an image: what it must hash to, its size, and its content."""

    digest: str
    size: int
    media_type: str
    read: Callable[[], Iterator[bytes]]

    @property
    def path(self) -> str:
        return f"blobs/{self.digest.replace(':', '/')}"

    @property
    def row(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def export(host: Host, store: Store, release: Release, needed_bytes: int, tell: Tell) -> bool:
    """Write the release's image to where files from other hosts arrive; False where the other store lacks it, or room.

    What goes wrong here costs a download and no more, so it is told and raises nothing.
    """
    image = release.image
    target = host.paths.incoming_dir(saved.REPO, saved.commit(release)) / saved.FILE
    other = host.paths.on_host(store.docker_root if store.kind == CONTAINERD else store.containerd_root)
    part = target.with_suffix(".part")
    try:
        parts = parts_of(store.kind, other, image)
        if not parts or target.exists():
            return False
        total = sum(one.size for one in parts)
        # The file, and in the store the parts as they come beside what they unpack to.
        room = total + max(needed_bytes, 2 * total)
        target.parent.mkdir(parents=True, exist_ok=True)
        folders = [folder for folder in (target.parent, host.paths.on_host(store.folder)) if folder.is_dir()]
        free = min(shutil.disk_usage(folder).free for folder in folders)
        if free < room:
            tell(f"image {image.reference}: {other} has it, but {room / 1e9:.1f} GB must be free to take it from there")
            return False
        tell(f"image {image.reference}: Docker's other image store has it; taking {total / 1e9:.2f} GB from {other}")
        with part.open("wb") as stream:
            write(stream, parts, image.reference)
        part.rename(target)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error, Failed) as problem:
        part.unlink(missing_ok=True)
        tell(f"image {image.reference}: it can't be taken from {other} ({problem or type(problem).__name__})")
        return False
    return True


def parts_of(kind: str, other: Path, image: Image) -> list[Part]:
    """The image's configuration and layers in the store that is not of this kind; none where it is not there whole."""
    look = _of_graphdriver if kind == CONTAINERD else _of_containerd
    found = (look(other, name, image.architecture) for name in dict.fromkeys((image.pinned, *image.image_ids)))
    return next((parts for parts in found if parts), [])


def _document(path: Path, digest: str) -> dict[str, Any] | None:
    """The JSON object of a file that is named by its digest."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise Failed(f"{path} is damaged")
    found = json.loads(content)
    return found if isinstance(found, dict) else None


def _of_containerd(root: Path, digest: str, architecture: str) -> list[Part]:
    def blob(named: str) -> Path:
        return root / BLOBS / named.replace(":", "/")

    def part(named: str, media_type: str) -> Part:
        return Part(named, blob(named).stat().st_size, media_type, partial(_chunks, blob(named)))

    found = _document(blob(digest), digest) or {}
    for row in found.get("manifests", []):
        if (row.get("platform") or {}).get("architecture") == architecture:
            found = _document(blob(row["digest"]), row["digest"]) or {}
            break
    # What came out of a file has plain layers, and a manifest of this host's own, which no release names.
    named = found["config"]["digest"] if "layers" in found else digest
    config = _document(blob(named), named) or {}
    plain = (config.get("rootfs") or {}).get("diff_ids") or []
    parts = [part(named, f"{OCI}.config.v1+json")] if plain else []
    for layer, row in zip(plain, found.get("layers") or [None] * len(plain), strict=True):
        if row and blob(row["digest"]).is_file() and blob(row["digest"]).stat().st_size == row["size"]:
            parts.append(part(row["digest"], row["mediaType"]))
        elif blob(layer).is_file():
            parts.append(part(layer, f"{OCI}.layer.v1.tar"))
        else:
            return []
    return parts


def _of_graphdriver(root: Path, digest: str, _: str) -> list[Part]:
    known = root / "image/overlay2"
    path = known / "imagedb/content" / digest.replace(":", "/")
    config = _document(path, digest)
    if config is None:
        return []
    parts = [Part(digest, path.stat().st_size, f"{OCI}.config.v1+json", partial(_chunks, path))]
    chain = ""
    for layer in config["rootfs"]["diff_ids"]:
        # A layer is filed under all that lie beneath it (OCI image specification, «Layer ChainID»).
        chain = f"sha256:{hashlib.sha256(f'{chain} {layer}'.encode()).hexdigest()}" if chain else layer
        folder = known / "layerdb" / chain.replace(":", "/")
        record = folder / "tar-split.json.gz"
        if not record.is_file():
            return []
        files = root / "overlay2" / (folder / "cache-id").read_text(encoding="utf-8").strip() / "diff"
        size = sum(len(held) + length for held, _, length in _entries(record))
        parts.append(Part(layer, size, f"{OCI}.layer.v1.tar", partial(_layer, record, files)))
    return parts


def _entries(record: Path) -> Iterator[tuple[bytes, str, int]]:
    """The record of a tar file: bytes that it holds itself, or a file of the layer and its length."""
    with gzip.open(record, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["type"] == 2:
                yield base64.b64decode(row["payload"]), "", 0
            elif row.get("size"):
                raw = row.get("name_raw")
                name = base64.b64decode(raw).decode("utf-8", "surrogateescape") if raw else row["name"]
                yield b"", name, row["size"]


def _layer(record: Path, files: Path) -> Iterator[bytes]:
    for held, name, _ in _entries(record):
        yield held
        if name:
            yield from _chunks(files / name.lstrip("/"))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            yield chunk


def write(stream: IO[bytes], parts: list[Part], reference: str) -> None:
    """Write an archive that both stores load: an OCI layout, and Docker's own list of what is in it."""
    config, *layers = parts
    manifest = _own(
        {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config.row},
        layers=[layer.row for layer in layers],
    )
    named = {"io.containerd.image.name": qualified(reference), "org.opencontainers.image.ref.name": reference}
    entry = {"mediaType": f"{OCI}.manifest.v1+json", "digest": _digest(manifest), "size": len(manifest)}
    listed = {"Config": config.path, "RepoTags": [reference], "Layers": [layer.path for layer in layers]}
    texts = {
        "oci-layout": _own({"imageLayoutVersion": "1.0.0"}),
        "index.json": _own({"schemaVersion": 2, "manifests": [{**entry, "annotations": named}]}),
        "manifest.json": json.dumps([listed]).encode(),
        f"blobs/{_digest(manifest).replace(':', '/')}": manifest,
    }
    for path, text in texts.items():
        _add(stream, path, len(text), iter([text]), _digest(text))
    # Two layers may be the same.
    for part in {part.digest: part for part in parts}.values():
        _add(stream, part.path, part.size, part.read(), part.digest)
    stream.write(bytes(2 * _BLOCK))


def _own(document: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({**document, **more}, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _add(stream: IO[bytes], path: str, size: int, chunks: Iterator[bytes], digest: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = size, 0o644
    stream.write(entry.tobuf(tarfile.GNU_FORMAT))
    got, hashed = 0, hashlib.sha256()
    for chunk in chunks:
        stream.write(chunk)
        hashed.update(chunk)
        got += len(chunk)
    if got != size or f"sha256:{hashed.hexdigest()}" != digest:
        raise Failed(f"{digest} is damaged there")
    stream.write(bytes(-size % _BLOCK))


def qualified(reference: str) -> str:
    """A name with its registry, which Docker leaves away for its own (distribution: reference.ParseNormalizedNamed)."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference if slash else f'library/{reference}'}"

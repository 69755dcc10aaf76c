"""The simulated engine's images: one layer cut from a host's root file system, one configuration for each tag."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import tarfile
from pathlib import Path

from tests.lab import ledger, registry, rootfs
from tests.lab.config import CACHE_DIR, CONTROL_NAME, CONTROL_PORT, FIXTURES, IMAGE_REPOSITORY, LabError
from tests.lab.engine.link import ADDRESS_VARIABLE
from tests.lab.engine.main import NOTE, TAG_VARIABLE
from tests.lab.engine.tags import LATEST, TAGS, Tag
from tests.lab.run import run

SUITE = "bookworm"
ENGINE = Path(__file__).parent / "engine"
LAUNCHER = Path(__file__).parent / "guest" / "vllm.py"
RECORDINGS = ("contract-0.22.1.json", "contract-0.32.0.json", "metrics-0.22.1-offline.txt", "metrics-fresh.txt")
PROGRAMS = (
    "usr/bin/bash",
    "usr/bin/cat",
    "usr/bin/env",
    "usr/bin/id",
    "usr/bin/ls",
    "usr/bin/python3.11",
    "usr/bin/sh",
    "usr/bin/sleep",
    "usr/bin/uname",
)
LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "sbin": "usr/sbin",
    "usr/bin/python3": "python3.11",
}
# Parts of the standard library that no engine needs and that would only be pulled to every host.
LEFT_OUT = {"test", "idlelib", "lib2to3", "tkinter", "turtledemo", "ensurepip", "pydoc_data", "distutils"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EPOCH = "2026-01-01T00:00:00Z"
OCI = "application/vnd.oci.image"


def key() -> str:
    digest = hashlib.sha256(rootfs.key(SUITE).encode())
    recordings = [FIXTURES / "engine" / name for name in RECORDINGS]
    for file in (Path(__file__), LAUNCHER, *sorted(ENGINE.glob("*.py")), *recordings):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def ensure() -> Path:
    """An OCI layout with every tag of the simulated engine, built now if it is not in the cache."""
    target = CACHE_DIR / f"engine-{key()}"
    if target.exists():
        return target
    rootfs.ensure(SUITE)
    with rootfs.locked(target.name):
        if not target.exists():
            temporary = target.with_name(target.name + ".part")
            shutil.rmtree(temporary, ignore_errors=True)
            ledger.record("path", str(temporary))
            _build(temporary)
            temporary.rename(target)
    return target


def publish() -> None:
    """Put every tag into the lab's registry, unless this very set is there already."""
    layout = ensure()
    # Every checkout on this machine publishes into one storage, under the same tags: what the last tag points at says
    # whose set it is.
    if _published() == _digest_of(layout, LATEST):
        return
    for tag in TAGS:
        registry.push(layout, f"{IMAGE_REPOSITORY}:{tag}", layout_tag=tag)
    registry.push(layout, f"{IMAGE_REPOSITORY}:latest", layout_tag=LATEST)


def _published() -> str | None:
    try:
        return registry.digest(f"{IMAGE_REPOSITORY}:latest")
    except LabError:
        return None


def _digest_of(layout: Path, tag: str) -> str:
    index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in index["manifests"]}
    return str(named[tag])


def _build(layout: Path) -> None:
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise LabError(f"no image architecture is known for {platform.machine()}; expected {', '.join(ARCHITECTURES)}")
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    plain = _layer()
    packed = gzip.compress(plain, compresslevel=6, mtime=0)
    layer = _store(blobs, packed, f"{OCI}.layer.v1.tar+gzip")
    manifests = []
    for tag in TAGS.values():
        config = _store(blobs, _config(tag, architecture, plain), f"{OCI}.config.v1+json")
        body = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": [layer]}
        manifest = _store(blobs, _json(body), f"{OCI}.manifest.v1+json")
        manifests.append({**manifest, "annotations": {"org.opencontainers.image.ref.name": tag.name}})
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": manifests}))


def _config(tag: Tag, architecture: str, layer: bytes) -> bytes:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        TAG_VARIABLE: tag.name,
        ADDRESS_VARIABLE: f"http://{CONTROL_NAME}:{CONTROL_PORT}",
        **tag.environment,
    }
    labels = {
        "aeon.base": tag.base,
        "aeon.fixes": tag.fixes,
        "lab.simulated": "true",
        "org.opencontainers.image.description": NOTE,
    }
    return _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Env": [f"{name}={value}" for name, value in environment.items()],
                # Like the real image's: whoever forgets --entrypoint vllm gets a shell that knows no "serve".
                "Entrypoint": ["/bin/bash"],
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": EPOCH, "created_by": "sparkfleet lab"}],
        }
    )


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _store(blobs: Path, content: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _layer() -> bytes:
    """A tar whose bytes follow from its files alone: sorted, without owners."""
    root = rootfs.path(SUITE)
    members: dict[str, Path | str] = dict(LINKS)
    for program in PROGRAMS:
        members[program] = root / program
    for library in _libraries(root):
        members[library] = _resolved(root, library)
    for file in _standard_library(root):
        members[str(file.relative_to(root))] = file
    members["usr/bin/vllm"] = LAUNCHER
    home = "usr/lib/sparkfleet-lab/tests"
    for package in ("__init__.py", "lab/__init__.py"):
        members[f"{home}/{package}"] = Path(__file__).parents[1] / package
    for module in ENGINE.glob("*.py"):
        members[f"{home}/lab/engine/{module.name}"] = module
    for name in RECORDINGS:
        members[f"{home}/fixtures/engine/{name}"] = FIXTURES / "engine" / name
    texts = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
        "etc/group": "root:x:0:\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    }
    return _tar(members, texts, folders=("root", "tmp", "models", "root/.cache"))


def _tar(members: dict[str, Path | str], texts: dict[str, str], folders: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        parents = {str(parent) for name in (*members, *texts) for parent in Path(name).parents} - {"."}
        for name in sorted(parents | set(folders)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, source in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            if isinstance(source, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, source
                archive.addfile(entry)
                continue
            content = source.read_bytes()
            # Python trusts a compiled module by its source's time, so these keep theirs.
            entry.mtime = int(source.stat().st_mtime) if "/python3.11/" in name else 0
            executable = name.startswith("usr/bin/") or bool(source.stat().st_mode & stat.S_IXUSR)
            entry.size, entry.mode = len(content), 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(content))
        for name, text in sorted(texts.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _libraries(root: Path) -> set[str]:
    """The shared libraries, and the loader, that the programs and Python's own extensions are linked to."""
    extensions = [f"/{path.relative_to(root)}" for path in (root / "usr/lib/python3.11/lib-dynload").glob("*.so")]
    programs = [f"/{program}" for program in PROGRAMS]
    found: set[str] = set()
    listing = run("chroot", str(root), "ldd", *programs, *extensions)
    for path in re.findall(r"(/\S+) \(0x", listing):
        found.add(str(Path("usr", path.lstrip("/")) if not path.startswith("/usr/") else Path(path.lstrip("/"))))
    return found


def _resolved(root: Path, name: str) -> Path:
    """Follow links as they would be followed inside the root file system."""
    path = root / name
    for _ in range(8):
        if not path.is_symlink():
            return path
        target = str(path.readlink())
        path = root / target.lstrip("/") if target.startswith("/") else path.parent / target
    raise LabError(f"{name} in {root} is a link that leads nowhere after 8 steps; remove {root} to build it anew")


def _standard_library(root: Path) -> list[Path]:
    base = root / "usr/lib/python3.11"
    files = []
    for folder, names, contents in os.walk(base):
        names[:] = sorted(name for name in names if name not in LEFT_OUT and not name.startswith("config-"))
        contents = [name for name in sorted(contents) if ".opt-" not in name]
        files += [_resolved(root, str(Path(folder, name).relative_to(root))) for name in contents]
    return [file for file in files if file.is_file() and file.is_relative_to(base)]

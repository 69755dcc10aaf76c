"""Debian root file systems for the hosts: made once by debootstrap, then kept and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import ledger, procs
from tests.lab.config import CACHE_DIR, LAB_DIR, USER, LabError
from tests.lab.run import run

GUEST_FILES = Path(__file__).parent / "guest"

PACKAGES = (
    "systemd,systemd-sysv,dbus,openssh-server,sudo,python3,iproute2,ca-certificates,curl,"
    "docker.io,iptables,rsync,aria2,procps,kmod,iputils-ping,netbase,python3-venv"
).split(",")
# Debian 13 split the docker client from the daemon.
EXTRA_PACKAGES = {"bookworm": [], "trixie": ["docker-cli"]}

# Timers and terminals that a host of the lab has no use for and that would only cost start-up time, and sleep, which a
# host that serves must not fall into.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "hibernate.target",
    "hybrid-sleep.target",
    "man-db.timer",
    "sleep.target",
    "suspend.target",
    "systemd-networkd-wait-online.service",
)
ENABLED = {
    "lab-cgroups.service": "sysinit.target.wants",
    "lab-meminfo.service": "sysinit.target.wants",
    "nvidia-cdi-refresh.path": "multi-user.target.wants",
    "nvidia-cdi-refresh.service": "multi-user.target.wants",
}
STRIPPED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/lib/apt/lists")

SSHD_CONFIG = """\
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100:30:200
HostKey /etc/ssh/ssh_host_ed25519_key
"""


def key(suite: str) -> str:
    """What a root file system is made of, as a hash: this file, the units it copies, the suite, the machine."""
    digest = hashlib.sha256()
    for text in (suite, platform.machine(), USER, Path(__file__).read_text(encoding="utf-8")):
        digest.update(text.encode() + b"\0")
    for unit in sorted(ENABLED):
        digest.update(unit.encode() + b"\0" + (GUEST_FILES / unit).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def path(suite: str) -> Path:
    return CACHE_DIR / f"rootfs-{suite}-{key(suite)}"


def mirror() -> str:
    """The Debian mirror that this machine's own apt uses."""
    chosen = os.environ.get("SPARKFLEET_LAB_MIRROR")
    if chosen:
        return chosen
    listing = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)")
    for line in listing.splitlines():
        codename, _, uri = line.partition(" ")
        if "-" not in codename and uri.startswith(("http://", "https://", "file:")):
            return uri.strip()
    raise LabError(
        "apt on this machine names no Debian mirror that debootstrap can use; "
        "give one in SPARKFLEET_LAB_MIRROR, for example the mirror of your network"
    )


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time build the cached thing called ``name``."""
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    with (CACHE_DIR / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure(suite: str) -> Path:
    """The finished root file system of a suite, built now if it is not in the cache."""
    target = path(suite)
    if target.exists():
        return target
    with locked(target.name):
        if not target.exists():
            _build(suite, target)
    return target


def _build(suite: str, target: Path) -> None:
    temporary = target.with_name(target.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    pidfile, log = LAB_DIR / f"debootstrap-{suite}.pid", LAB_DIR / f"debootstrap-{suite}.log"
    ledger.record("path", str(temporary))
    ledger.record("process", str(pidfile))
    packages = ",".join(PACKAGES + EXTRA_PACKAGES[suite])
    # Namespaces of its own: however debootstrap ends, its mounts and its children end with it.
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(temporary), mirror()]
    try:
        status = procs.spawn([*isolated, *command], pidfile, log).wait(timeout=900)
    except subprocess.TimeoutExpired as error:
        ledger.undo("process", str(pidfile))
        raise LabError(f"debootstrap of {suite} did not end within 900 s; its log is {log}") from error
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise LabError(f"debootstrap of {suite} exited {status}; the end of {log} says: {tail}")
    _customise(temporary)
    temporary.rename(target)


def _customise(root: Path) -> None:
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    for folder in STRIPPED:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for pattern in ("etc/ssh/ssh_host_*", "etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        for file in root.glob(pattern):
            file.unlink()
    # An empty machine-id means "first boot" to systemd; every host gets its own before it starts.
    (root / "etc/machine-id").touch()
    (root / "var/log/journal").mkdir(exist_ok=True)
    (root / "var/lib/sparkfleet").mkdir()
    (root / "opt/sparkfleet-lab").mkdir()

    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    for unit, wanted_by in ENABLED.items():
        shutil.copy(GUEST_FILES / unit, units / unit)
        (units / wanted_by).mkdir(exist_ok=True)
        (units / wanted_by / unit).symlink_to(f"../{unit}")

    (root / "etc/ssh/sshd_config.d").mkdir(exist_ok=True)
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text(SSHD_CONFIG)
    run("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", "--uid", "1000", USER)
    drop_in = root / "etc/sudoers.d/lab"
    drop_in.write_text(f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    drop_in.chmod(0o440)
    # The stand-ins are Python programs: compiled here, every host starts them without compiling first.
    run("chroot", str(root), "python3", "-m", "compileall", "-q", "/usr/lib/python3", timeout_s=300)

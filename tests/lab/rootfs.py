"""Debian root file systems for the hosts: made once by debootstrap and apt, then kept and never changed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Renewed:
    """A suite with some packages of a newer one; all of that would not boot where there is cgroup v1 alone."""

    suite: str
    newer: str
    packages: tuple[str, ...]


RENEWED = {"trixie-forky": Renewed("trixie", "forky", ("docker.io", "docker-cli"))}
# As Ubuntu 26.04 has them by default: sudo and coreutils that were written anew.
RUST = ("sudo-rs", "rust-coreutils")

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
BUILD_S = 900.0
REACH = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
STRIPPED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/lib/apt/lists")

SSHD_CONFIG = """\
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100:30:200
HostKey /etc/ssh/ssh_host_ed25519_key
"""


def key(name: str) -> str:
    """What a root file system is made of, as a hash: this file, the units it copies, its name, the machine."""
    digest = hashlib.sha256()
    for text in (name, platform.machine(), USER, Path(__file__).read_text(encoding="utf-8")):
        digest.update(text.encode() + b"\0")
    for unit in sorted(ENABLED):
        digest.update(unit.encode() + b"\0" + (GUEST_FILES / unit).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def path(name: str) -> Path:
    return CACHE_DIR / f"rootfs-{name}-{key(name)}"


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


def ensure(name: str) -> Path:
    """The finished root file system of this name, a suite or a renewed one, built now if it is not in the cache."""
    target = path(name)
    if target.exists():
        return target
    renewed = RENEWED.get(name)
    base = ensure(renewed.suite) if renewed else None
    with locked(target.name):
        if not target.exists():
            temporary = target.with_name(target.name + ".part")
            shutil.rmtree(temporary, ignore_errors=True)
            ledger.record("path", str(temporary))
            if renewed and base:
                run("cp", "-a", str(base), str(temporary), timeout_s=300)
                _renew(temporary, renewed)
            else:
                _debootstrap(name, temporary)
                _customise(temporary)
            temporary.rename(target)
    return target


def _debootstrap(suite: str, root: Path) -> None:
    packages = ",".join(PACKAGES + EXTRA_PACKAGES[suite])
    _build(
        f"debootstrap-{suite}",
        ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), mirror()],
    )


def _renew(root: Path, renewed: Renewed) -> None:
    """Take some packages from a newer suite, which is pinned so low that nothing else comes from there."""
    pin = f"Package: *\nPin: release n={renewed.newer}\nPin-Priority: 100\n"
    # How this machine reaches a mirror (proxies, checks of dates); nothing of it stays.
    reach = [line for line in run("apt-config", "dump").splitlines() if line.startswith(REACH)]
    written = {
        "sources.list.d/lab.list": f"deb {mirror()} {renewed.newer} main\n",
        "preferences.d/lab": pin,
        "apt.conf.d/99lab": "\n".join(reach) + "\n",
    }
    for name, text in written.items():
        (root / "etc/apt" / name).write_text(text)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc", name), root / "etc" / name)
    install = "apt-get -q install -y --no-install-recommends"
    script = (
        f"apt-get -q update && {install} -t {renewed.newer} {' '.join(renewed.packages)} && {install} {' '.join(RUST)}"
    )
    inside = ["env", "DEBIAN_FRONTEND=noninteractive", "chroot", str(root), "sh", "-ec", script]
    _build(f"renew-{renewed.suite}-{renewed.newer}", inside, f"--mount-proc={root / 'proc'}")
    for name in (*(f"apt/{file}" for file in written), "resolv.conf", "hosts"):
        (root / "etc" / name).unlink()
    _clean(root)
    # What provides them leaves the old ones in place, under their names.
    _replace(root / "usr/bin/sudo", "../lib/cargo/bin/sudo")
    for name in run("chroot", str(root), "coreutils", "--list").split():
        if (root / "usr/bin" / name).exists():
            _replace(root / "usr/bin" / name, "coreutils")


def _replace(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _build(name: str, command: list[str], *options: str) -> None:
    """Run a long step in namespaces of its own: however it ends, its mounts and its children end with it."""
    pidfile, log = LAB_DIR / f"{name}.pid", LAB_DIR / f"{name}.log"
    ledger.record("process", str(pidfile))
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", *options]
    try:
        status = procs.spawn([*isolated, *command], pidfile, log).wait(timeout=BUILD_S)
    except subprocess.TimeoutExpired as error:
        ledger.undo("process", str(pidfile))
        raise LabError(f"{name} did not end within {BUILD_S:.0f} s; its log is {log}") from error
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
        raise LabError(f"{name} exited {status}; the end of {log} says: {tail}")


def _clean(root: Path) -> None:
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    for folder in STRIPPED:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)


def _customise(root: Path) -> None:
    _clean(root)
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

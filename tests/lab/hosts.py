"""Hosts: an overlay over a cached root file system, booted with its own systemd, sshd and dockerd."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from tests.lab import cgroups, gpu, ledger, meminfo, network, procs, rootfs
from tests.lab.config import (
    CONTROL_GATEWAY,
    CONTROL_NAME,
    DATA_DISK_BYTES,
    GATEWAY,
    LAB_DIR,
    REGISTRY,
    USER,
    Host,
    LabError,
)
from tests.lab.run import run

KEY = LAB_DIR / "id_ed25519"
KNOWN_HOSTS = LAB_DIR / "known_hosts"
BOOT_S = 60.0
# Folders of /var/lib on the host's own disk: neither of Docker's image stores works on an overlay.
ON_DISK = ("docker", "containerd", "sparkfleet")
# Hosts are made in parallel, and each adds its line to the one file.
_known_hosts_lock = threading.Lock()

# Each boot joins the host's control groups and becomes the container; 133 is its way of saying that the guest
# asked to be restarted. This shell stays outside the groups, which on the unified layout hold no process themselves.
# A written 0 is the writer itself: to ask for a parent's pid may give the machine's own init, when that parent died.
_SUPERVISE = """
while :; do
    (while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@")
    [ $? = 133 ] || exit
done
"""


def ensure_key() -> None:
    if not KEY.exists():
        LAB_DIR.mkdir(parents=True, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sparkfleet-lab", "-f", str(KEY))


def is_running(host: Host) -> bool:
    return procs.recorded(host.pidfile) is not None


def create(host: Host) -> None:
    """Everything a host needs before it can boot; does nothing for what stands already."""
    lower = rootfs.ensure(host.kind.rootfs)
    network.attach(host)
    for name in ("upper", "work", "root", "data", "lab"):
        (host.folder / name).mkdir(parents=True, exist_ok=True)
    _mount_data(host)
    root = host.folder / "root"
    if not ledger.is_mounted(str(root)):
        ledger.record("mount", str(root))
        layers = f"lowerdir={lower},upperdir={host.folder / 'upper'},workdir={host.folder / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, str(root))
    if not (root / "etc/ssh/ssh_host_ed25519_key").exists():
        _furnish(host, root)
    if not (host.folder / "lab/meminfo").exists():
        meminfo.write(host, meminfo.IDLE_AVAILABLE_KIB)
        (host.folder / "lab/gpu.json").write_text(json.dumps({"mode": "ok", "driver_version": gpu.DRIVER}))


def _mount_data(host: Host) -> None:
    """A disk of the host's own, so that it can be filled, and because Docker needs a real file system."""
    image, target = host.folder / "data.img", host.folder / "data"
    if ledger.is_mounted(str(target)):
        return
    if not image.exists():
        temporary = image.with_suffix(".part")
        with temporary.open("wb") as file:
            file.truncate(DATA_DISK_BYTES)
        options = ["-O", "^has_journal,sparse_super2,^resize_inode", "-E", "lazy_itable_init=1,nodiscard"]
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "400000", *options, str(temporary))
        temporary.rename(image)
    ledger.record("mount", str(target))
    run("mount", "-o", "loop,noatime", str(image), str(target))
    for name in ON_DISK:
        (target / name).mkdir(exist_ok=True)


def _furnish(host: Host, root: Path) -> None:
    (root / "etc/hostname").write_text(f"{host.name}\n")
    own = f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n"
    (root / "etc/hosts").write_text(f"{own}{GATEWAY} gateway\n{CONTROL_GATEWAY} {CONTROL_NAME}\n")
    (root / "etc/machine-id").write_text(hashlib.md5(host.name.encode()).hexdigest() + "\n")
    gpu.install(host, root)
    (root / "etc/docker").mkdir(exist_ok=True)
    (root / "etc/docker/daemon.json").write_text(json.dumps(docker_settings(host), indent=2) + "\n")
    ssh = root / f"home/{USER}/.ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "authorized_keys").write_text(KEY.with_suffix(".pub").read_text())
    run("chroot", str(root), "chown", "-R", f"{USER}:{USER}", f"/home/{USER}/.ssh")
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    temporary = host.folder / "host_key"
    for stale in (temporary, temporary.with_suffix(".pub")):
        stale.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(temporary))
    public = temporary.with_suffix(".pub").read_text()
    _remember(host, public)
    (root / "etc/ssh/ssh_host_ed25519_key.pub").write_text(public)
    # Last, because its presence says that the host is furnished.
    host_key.write_text(temporary.read_text())
    host_key.chmod(0o600)


def docker_settings(host: Host) -> dict[str, object]:
    # Serving uses the host's network, so dockerd needs no bridge, and this kernel offers it no firewall tables.
    settings: dict[str, object] = {
        "iptables": False,
        "ip6tables": False,
        "bridge": "none",
        "ip-forward": False,
        "insecure-registries": [REGISTRY],
    }
    features = {
        "cdi": host.kind.gpu_injection == "cdi",
        "containerd-snapshotter": host.kind.image_store == "containerd",
    }
    if any(features.values()):
        settings["features"] = {name: True for name, wanted in features.items() if wanted}
    return settings


def _remember(host: Host, public: str) -> None:
    """Put a host's key into known_hosts in place of any older one of the same address."""
    algorithm, key = public.split()[:2]
    with _known_hosts_lock:
        old = KNOWN_HOSTS.read_text().splitlines() if KNOWN_HOSTS.exists() else []
        kept = [line for line in old if line.split(" ", 1)[0] != host.address]
        KNOWN_HOSTS.write_text("\n".join([*kept, f"{host.address} {algorithm} {key}"]) + "\n")


def boot(host: Host) -> None:
    """Power the host on; returns at once, ``wait_ready`` waits."""
    if is_running(host):
        return
    # What a power cut left in the group would keep the new systemd from taking it over.
    wrong = cgroups.remove(host.name)
    if wrong:
        raise LabError(f"the control group of {host.name} {wrong}; `python -m tests.lab down` and try again")
    guest = host.folder / "guest.pid"
    ledger.record("cgroup", host.name)
    ledger.record("guest", str(guest))
    ledger.record("process", str(host.pidfile))
    folders = cgroups.create(host.name)
    data = host.folder / "data"
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--directory={host.folder / 'root'}",
        f"--network-namespace-path=/run/netns/{host.netns}",
        f"--machine={host.name}",
        "--capability=all",
        # runc keeps a session keyring for each container and loads device filters as BPF programs.
        "--system-call-filter=add_key keyctl bpf",
        *(f"--bind={data / name}:/var/lib/{name}" for name in ON_DISK),
        f"--bind={host.folder / 'lab'}:/opt/sparkfleet-lab",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--boot",
    ]
    if not cgroups.is_unified():
        command.append("SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1")
    log = host.folder / "console.log"
    groups = [str(folder) for folder in folders]
    procs.spawn(["/bin/sh", "-c", _SUPERVISE, host.name, *groups, "--", *command], host.pidfile, log)
    _note_guest(host, log)


def _note_guest(host: Host, log: Path) -> None:
    """Record the guest's own PID 1: it outlives its supervisor when that is killed."""
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline:
        if _guest(host) is not None:
            return
        time.sleep(0.02)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise LabError(f"{host.name} did not start within 15 s; the end of {log} says: {tail}")


def _guest(host: Host) -> procs.Process | None:
    """The guest's PID 1 as it is now: a host that restarted itself has another one than it was booted with."""
    note = host.folder / "guest.pid"
    for container in _containers(host):
        for child in procs.children(container):
            if _is_init(child):
                procs.note(child, note)
    return procs.recorded(note)


def _containers(host: Host) -> list[int]:
    """The systemd-nspawn of a host, while there is one."""
    supervisor = procs.recorded(host.pidfile)
    return procs.children(supervisor.pid) if supervisor else []


def _is_init(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(line.split()[-1] == "1" for line in status.splitlines() if line.startswith("NSpid:"))


def wait_ready(host: Host, timeout_s: float = BOOT_S) -> None:
    """Until sshd lets the lab's user in and dockerd answers."""
    deadline = time.monotonic() + timeout_s
    answer = "no answer yet"
    while time.monotonic() < deadline:
        if not is_running(host):
            raise LabError(f"{host.name} is not running any more; its console is {host.folder / 'console.log'}")
        if _greets(host):
            result = ssh(host, "sudo docker info --format '{{.ServerVersion}}'", timeout_s=15, check=False)
            if result.returncode == 0:
                return
            answer = (result.stderr or result.stdout).strip()[-200:]
        time.sleep(0.1)
    raise LabError(
        f"{host.name} was not ready within {timeout_s:.0f} s ({answer}); its console is {host.folder / 'console.log'}"
    )


def _greets(host: Host) -> bool:
    try:
        with socket.create_connection((host.address, 22), timeout=1.0) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def ssh(host: Host, command: str, *, timeout_s: float = 60.0, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command on a host as the lab's user."""
    options = {
        "IdentityFile": str(KEY),
        "UserKnownHostsFile": str(KNOWN_HOSTS),
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
    }
    settings = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        result = subprocess.run(
            ["ssh", "-F", "/dev/null", *settings, f"{USER}@{host.address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{command}` on {host.name} did not end within {timeout_s:.0f} s") from error
    if check and result.returncode:
        said = (result.stderr or result.stdout).strip()[-1000:] or "it said nothing"
        raise LabError(f"`{command}` on {host.name} exited {result.returncode}: {said}")
    return result


def stop(host: Host, timeout_s: float = 90.0) -> None:
    """A clean power-off."""
    for container in _containers(host):
        procs.send(container, signal.SIGTERM)
    _wait_gone(host, timeout_s)


def power_cut(host: Host, timeout_s: float = 15.0) -> None:
    """The plug: the guest's PID 1 dies, and the kernel ends its whole PID namespace at once."""
    guest = _guest(host)
    if guest is None:
        raise LabError(f"{host.name} is not running, so its power cannot be cut; `python -m tests.lab status` lists")
    procs.send(guest.pid, signal.SIGKILL)
    _wait_gone(host, timeout_s)


def _wait_gone(host: Host, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_running(host) and procs.recorded(host.folder / "guest.pid") is None:
            return
        time.sleep(0.02)
    raise LabError(f"{host.name} still runs {timeout_s:.0f} s after it was told to stop")

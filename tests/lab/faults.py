"""Things that happen to real machines, done to a host from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.lab import cgroups, control, gpu, hosts, network, procs
from tests.lab.config import LAB_DIR, Host, LabError, host_named

SERVICES = ("registry", "hub")
BALLAST = "lab-ballast"


def power_cut(name: str, *, boot: bool = True) -> None:
    """Pull the plug and, unless told otherwise, put it back and wait until the host is up."""
    host = host_named(name)
    hosts.power_cut(host)
    if boot:
        power_on(name)


def power_on(name: str) -> None:
    host = host_named(name)
    hosts.boot(host)
    hosts.wait_ready(host)


def power_off(name: str) -> None:
    """A clean shutdown, services first."""
    hosts.stop(host_named(name))


def freeze(name: str) -> None:
    """Stop every process of the host at once: it keeps its connections and answers nothing."""
    _set_frozen(host_named(name), frozen=True)


def thaw(name: str) -> None:
    _set_frozen(host_named(name), frozen=False)


def _set_frozen(host: Host, *, frozen: bool) -> None:
    if not hosts.is_running(host):
        raise LabError(f"{host.name} is not running; `python -m tests.lab power-on {host.name}` boots it")
    if not cgroups.freeze(host.name, frozen):
        raise LabError("this machine has no freezer control group, so a host cannot be frozen here")


def link_down(name: str) -> None:
    """The host's network is gone; the lab's own line to it stays."""
    network.set_link(host_named(name), up=False)


def link_up(name: str) -> None:
    network.set_link(host_named(name), up=True)


def link_rate(name: str, megabit: float | None) -> None:
    """Slow down what the host receives to so many Mbit/s; None lifts the limit."""
    network.set_rate(host_named(name), megabit)


def fill_disk(name: str, free_bytes: int = 0) -> None:
    """Leave ``free_bytes`` on the disk under /var/lib/docker and /var/lib/sparkfleet."""
    data = _data(host_named(name))
    free_disk(name)
    available = os.statvfs(data)
    ballast = available.f_bavail * available.f_frsize - free_bytes
    if ballast <= 0:
        return
    descriptor = os.open(data / BALLAST, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # The file's own index takes a little room too, so the last megabytes are taken as they come.
        for step in (ballast, ballast - (64 << 20)):
            try:
                os.posix_fallocate(descriptor, 0, max(step, 1))
                break
            except OSError:
                continue
    finally:
        os.close(descriptor)


def free_disk(name: str) -> None:
    (_data(host_named(name)) / BALLAST).unlink(missing_ok=True)


def _data(host: Host) -> Path:
    folder = host.folder / "data"
    if not folder.is_dir():
        raise LabError(f"{host.name} is not part of this lab; `python -m tests.lab status` lists its hosts")
    return folder


def break_gpu(name: str, mode: str = "no-devices", exit_code: int = 6) -> None:
    """Make nvidia-smi answer with one of the failures seen on real machines."""
    if mode not in gpu.MODES:
        raise LabError(f"nvidia-smi cannot be made to do {mode!r}; there are {', '.join(gpu.MODES)}")
    control.set_knobs(name, gpu_mode=mode, gpu_exit_code=exit_code)


def mend_gpu(name: str) -> None:
    control.set_knobs(name, gpu_mode="ok")


def pause_service(name: str) -> None:
    """The registry or the Hub stand-in still takes connections and answers none."""
    _signal_service(name, signal.SIGSTOP)


def resume_service(name: str) -> None:
    _signal_service(name, signal.SIGCONT)


def _signal_service(name: str, number: signal.Signals) -> None:
    process = procs.recorded(LAB_DIR / f"{name}.pid") if name in SERVICES else None
    if process is None:
        raise LabError(f"{name!r} does not run in this lab; the services are {' and '.join(SERVICES)}")
    procs.send(process.pid, number)

"""Up, down and status: the whole lab, one step after the other."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.lab import control, hosts, hub_faults, images, ledger, network, procs, registry, remains, rootfs, toymodels
from tests.lab.config import (
    CACHE_DIR,
    CONTROL_GATEWAY,
    CONTROL_PORT,
    GATEWAY,
    HUB_PORT,
    LAB_DIR,
    REGISTRY,
    ROOT,
    SUFFIX,
    Host,
    LabError,
    State,
    host_named,
)

STATE = LAB_DIR / "state.json"
HUB_STORE = LAB_DIR / "hub"
LOCK = Path(f"/run/sparkfleet-lab{SUFFIX}.lock")
# A process that a killed one was just starting holds the lock until it becomes another program.
RELEASE_S = 5.0
ENGINES = ("sim", "vllm")


@contextmanager
def alone() -> Iterator[None]:
    """One ``up`` or ``down`` at a time; the lock ends with the process, however that ends."""
    deadline = time.monotonic() + RELEASE_S
    with LOCK.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise LabError(
                        "another `tests.lab up` or `down` is under way on this machine; wait for it to end"
                    ) from error
                time.sleep(0.1)
        yield


def up(nodes: int, engine: str, say: Callable[[str], None]) -> State:
    """Bring the lab to at least ``nodes`` running hosts; what stands already is left as it is."""
    wanted = [Host(number) for number in range(1, nodes + 1)]
    known = read_state()
    kept = [host for host in known.hosts if host not in wanted] if known else []
    with alone():
        for folder in remains.clear():
            say(f"removed what a lab that died in {folder.parent} had left")
        LAB_DIR.mkdir(parents=True, exist_ok=True)
        hosts.ensure_key()
        network.create_bridges()
        with ThreadPoolExecutor() as pool:
            wanted_roots = {host.kind.rootfs for host in wanted} | {images.SUITE}
            missing = [name for name in sorted(wanted_roots) if not rootfs.path(name).exists()]
            if missing:
                say(f"building root file systems for {' and '.join(missing)}: two to three minutes, once")
            for build in [pool.submit(rootfs.ensure, name) for name in wanted_roots]:
                build.result()
            _start_services()
            booting = [pool.submit(_bring_up, host) for host in wanted]
            publishing = pool.submit(images.publish)
            for host, task in zip(wanted, booting, strict=True):
                task.result()
                say(f"{host.name} {host.address} is up ({_described(host)})")
            publishing.result()
        if engine == "vllm":
            _publish_real_engine(say)
        state = State(engine, tuple(sorted([*wanted, *kept], key=lambda host: host.number)))
        _write_state(state)
    return state


def _bring_up(host: Host) -> None:
    hosts.create(host)
    hosts.boot(host)
    hosts.wait_ready(host)


def _start_services() -> None:
    python = [sys.executable, "-m"]
    toymodels.write(HUB_STORE)
    _start("control", [*python, "tests.lab.control_server", str(CONTROL_PORT), GATEWAY, CONTROL_GATEWAY])
    _start("hub", [*python, "tests.lab.hub", GATEWAY, str(HUB_PORT), str(HUB_STORE), str(LAB_DIR)])
    _start("registry", registry.command())
    control.wait_ready()
    registry.wait_ready()


def _start(name: str, command: list[str]) -> None:
    pidfile = LAB_DIR / f"{name}.pid"
    if procs.recorded(pidfile) is None:
        ledger.record("process", str(pidfile))
        procs.spawn(command, pidfile, LAB_DIR / f"{name}.log", cwd=ROOT)


def _publish_real_engine(say: Callable[[str], None]) -> None:
    if importlib.util.find_spec("tests.lab.realengine") is None:
        raise LabError("--engine vllm needs tests/lab/realengine.py, which this checkout lacks; use --engine sim")
    realengine = importlib.import_module("tests.lab.realengine")
    say("the real engine: from the cache, or several minutes of building")
    realengine.publish(REGISTRY, CACHE_DIR, HUB_STORE)


def down() -> list[str]:
    """Undo everything the ledger knows; returns what could not be undone."""
    with alone():
        left = ledger.undo_all()
        if not left:
            shutil.rmtree(LAB_DIR, ignore_errors=True)
    return left


def read_state() -> State | None:
    if not STATE.exists():
        return None
    document = json.loads(STATE.read_text(encoding="utf-8"))
    return State(document["engine"], tuple(host_named(host["name"]) for host in document["hosts"]))


def _write_state(state: State) -> None:
    temporary = STATE.with_suffix(".part")
    temporary.write_text(json.dumps(state.document(), indent=2) + "\n", encoding="utf-8")
    temporary.replace(STATE)


def status() -> list[str]:
    """One line for each service and host."""
    lines = []
    for name in ("control", "hub", "registry"):
        running = procs.recorded(LAB_DIR / f"{name}.pid") is not None
        lines.append(f"{name:<10}{'running' if running else 'not running'}")
    lines.append(f"{'hub sent':<10}{hub_faults.bytes_served()} bytes")
    state = read_state()
    for host in state.hosts if state else ():
        lines.append(f"{host.name:<10}{_host_status(host)}")
    return lines


def _host_status(host: Host) -> str:
    if not hosts.is_running(host):
        return "off"
    if not control.is_running():
        return f"on  {host.address}"
    found = control.state(host.name)
    engines = ", ".join(f"{engine['tag']} {engine['phase']}" for engine in found["engines"]) or "no engine"
    available = found["available_kib"] / (1 << 20)
    return f"on  {host.address}  {_described(host)}  {available:.1f} GiB available  {engines}"


def _described(host: Host) -> str:
    kind = host.kind
    return f"{kind.os}, GPU by {kind.gpu_injection}, images in {kind.image_store}"

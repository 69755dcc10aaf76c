"""A converged host of the lab, taken down as archives and answers, for light hosts to repeat."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparknode.base import dockerd
from sparknode.facts import collect
from tests.bench.lighthosts import Answer, Probe, Snapshot
from tests.lab.config import LAB_DIR, ROOT

INVENTORY = "inventory/lab.py"
PYINFRA = str(Path(sys.executable).parent / "pyinfra")
# What the playbook and Ansible's systemd module ask beside the probe's own questions.
FOR_ANSIBLE = (
    ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"),
    ("docker", "info", "--format", "{{json .}}"),
    ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"),
    ("docker", "container", "inspect", "sparkfleet-serve"),
    ("systemctl", "show", "sparkfleet-serve.service"),
    ("systemctl", "is-enabled", "sparkfleet-serve.service"),
    ("systemctl", "is-enabled", "sparkfleet-serve.service", "-l"),
)
# What the light hosts lack; everything else that the probe runs, they run for real.
REPLAYED = ("docker", "systemctl", "timedatectl", "nvidia-smi", "nvidia-ctk", "fwupdmgr", "nvidia-spark-ota-check")
HOOK = "nvidia-container-runtime-hook"
FILES = "var/lib/sparkfleet usr/local/bin/sparknode usr/local/lib/sparknode etc/dgx-release"
# Wall and CPU seconds of the probe with all that it runs, by bash's own clock.
TIMED_PROBE = ("bash", "-c", "TIMEFORMAT='%R %U %S'; time /usr/local/bin/sparknode probe")
PROBES = 5


@contextmanager
def lab(nodes: int) -> Iterator[dict[str, Any]]:
    """Boot hosts and lock what they serve; yields the lab's own description of them."""
    try:
        run(sys.executable, "-m", "tests.lab", "up", "--nodes", str(nodes))
        run(sys.executable, "-m", "sparkfleet", "lock", "--inventory", INVENTORY)
        yield json.loads((LAB_DIR / "state.json").read_text())
    finally:
        run(sys.executable, "-m", "tests.lab", "down")


def take(state: dict[str, Any], folder: Path) -> tuple[Snapshot, Path]:
    """Return what the first host is, once it serves, and the lock that it was deployed with."""
    snapshot = Snapshot([_answer(state, argv) for argv in _questions(state)], _daemon(state))
    asked = [ask(state, TIMED_PROBE) for _ in range(PROBES)]
    times = [tuple(map(float, done.stderr.split()[-3:])) for done in asked]
    walls, cpus = [wall for wall, _, _ in times], [user + system for _, user, system in times]
    snapshot.probe = Probe(asked[-1].stdout, walls, cpus)
    archive = folder / "host.tar"
    units = "$(ls -d etc/systemd/system/sparkfleet-* etc/systemd/system/*.wants/sparkfleet-*)"
    with archive.open("wb") as stream:
        command = f"sudo sh -c {shlex.quote(f'cd / && tar -c --ignore-failed-read {FILES} {units}')}"
        subprocess.run(_ssh(state, command), stdout=stream, check=True, timeout=300)
    snapshot.archives.append(archive)
    lock = folder / "fleet.lock.json"
    lock.write_bytes((LAB_DIR / "fleet.lock.json").read_bytes())
    return snapshot, lock


def _questions(state: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield from (argv for argv in (*collect.COMMANDS.values(), *FOR_ANSIBLE) if argv[0] in REPLAYED)
    if ask(state, ("which", HOOK)).returncode == 0:
        yield (HOOK,)


def _daemon(state: dict[str, Any]) -> dict[str, str]:
    """What Docker's daemon answers to the probe, by path: the body, a line feed and the status."""

    def get(path: str) -> str:
        curl = ("curl", "-s0", "-w", "\\n%{http_code}", "--unix-socket", dockerd.SOCKET, f"http://docker{path}")
        return ask(state, curl).stdout

    paths = [argv[2] for argv in collect.COMMANDS.values() if argv[0] == dockerd.NAME]
    running = json.loads(get(dockerd.RUNNING[2]).rpartition("\n")[0])
    return {path: get(path) for path in (*paths, *(f"/containers/{row['Id']}/json" for row in running))}


def run(*argv: str) -> float:
    """Run a command in the repository; return its seconds, or raise RuntimeError with its own words."""
    began = time.monotonic()
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - began


def ask(state: dict[str, Any], argv: Sequence[str], host: int = 0) -> subprocess.CompletedProcess[str]:
    """What a command says as root on a host of the lab, asked by plain ssh."""
    command = _ssh(state, f"sudo {shlex.join(argv)}", host)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _ssh(state: dict[str, Any], command: str, host: int = 0) -> list[str]:
    options = ["-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={state['known_hosts']}", "-i", state["key"]]
    return ["ssh", *options, f"{state['user']}@{state['hosts'][host]['address']}", command]


def _answer(state: dict[str, Any], argv: Sequence[str]) -> Answer:
    done = ask(state, argv)
    return Answer(argv, done.returncode, done.stdout, done.stderr)

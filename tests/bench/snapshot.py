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

from sparknode import collect
from tests.bench.lighthosts import Answer, Probe, Snapshot
from tests.lab.config import ROOT

# What the playbook and Ansible's systemd module ask beside the probe's own questions.
FOR_ANSIBLE = (
    ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"),
    ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"),
    ("systemctl", "show", "sparkfleet-serve.service"),
    ("systemctl", "is-enabled", "sparkfleet-serve.service"),
    ("systemctl", "is-enabled", "sparkfleet-serve.service", "-l"),
)
# What the light hosts lack; everything else that the probe runs, they run for real.
REPLAYED = ("docker", "systemctl", "timedatectl", "nvidia-smi", "nvidia-ctk", "fwupdmgr", "nvidia-spark-ota-check")
HOOK = "nvidia-container-runtime-hook"
FILES = "var/lib/sparkfleet usr/local/bin/sparknode etc/dgx-release"


@contextmanager
def converged(folder: Path) -> Iterator[tuple[Snapshot, Path]]:
    """Bring up one host, deploy to it, and take it down again; yields what it was, and the lock that it was deployed
    with."""
    try:
        _run(sys.executable, "-m", "tests.lab", "up", "--nodes", "1")
        _run(sys.executable, "-m", "sparkfleet", "lock", "--inventory", "inventory/lab.py")
        _run(str(Path(sys.executable).parent / "pyinfra"), "inventory/lab.py", "deploy.py", "-y")
        state = json.loads((ROOT / ".lab/state.json").read_text())
        snapshot = Snapshot([_ask(state, argv) for argv in _questions(state)])
        snapshot.probe = min((_probe(state) for _ in range(3)), key=lambda one: one.seconds)
        archive = folder / "host.tar"
        units = "$(ls -d etc/systemd/system/sparkfleet-*)"
        with archive.open("wb") as stream:
            command = f"sudo sh -c {shlex.quote(f'cd / && tar -c --ignore-failed-read {FILES} {units}')}"
            subprocess.run(_ssh(state, command), stdout=stream, check=True, timeout=300)
        snapshot.archives.append(archive)
        lock = folder / "fleet.lock.json"
        lock.write_bytes((ROOT / ".lab/fleet.lock.json").read_bytes())
    finally:
        _run(sys.executable, "-m", "tests.lab", "down")
    yield snapshot, lock


def _questions(state: dict[str, Any]) -> Iterator[Sequence[str]]:
    yield from (argv for argv in (*collect.COMMANDS.values(), *FOR_ANSIBLE) if argv[0] in REPLAYED)
    yield ("docker", "ps", "-q")
    running = _ask(state, ("docker", "ps", "-q")).stdout.split()
    if running:
        yield ("docker", "inspect", "--format", collect.INJECTED, *running)
    if _ask(state, ("which", HOOK)).rc == 0:
        yield (HOOK,)


def _probe(state: dict[str, Any]) -> Probe:
    began = time.monotonic()
    said = _ask(state, ("/usr/local/bin/sparknode", "probe"))
    wall = time.monotonic() - began
    began = time.monotonic()
    _ask(state, ("true",))
    return Probe(said.stdout, max(0.0, wall - (time.monotonic() - began)))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def _ssh(state: dict[str, Any], command: str) -> list[str]:
    options = ["-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={state['known_hosts']}", "-i", state["key"]]
    return ["ssh", *options, f"{state['user']}@{state['hosts'][0]['address']}", command]


def _ask(state: dict[str, Any], argv: Sequence[str]) -> Answer:
    command = f"sudo {shlex.join(argv)}"
    done = subprocess.run(_ssh(state, command), capture_output=True, text=True, timeout=60, check=False)
    return Answer(argv, done.returncode, done.stdout, done.stderr)

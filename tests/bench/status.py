"""How soon the fleet's table is there: the whole of `tasks/status.py`, beside connecting alone.

python -m tests.bench.status [--hosts 16] [--rounds 5]

sshd, sudo and the way there are real. The hosts of a fleet have cores of their own, and light hosts share this
machine's: so one of them runs the probe for real, alone, and all then give its answer after as long as that took.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.bench.converge import PYINFRA, write_inventory
from tests.bench.lighthosts import Snapshot, light_hosts
from tests.bench.measure import interleaved
from tests.bench.snapshot import converged
from tests.lab.config import ROOT

GOAL_S = 3.0


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.bench.status")
    options.add_argument("--hosts", type=int, default=16)
    options.add_argument("--rounds", type=int, default=5)
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-status-"))
    try:
        with converged(folder) as (snapshot, lock):
            document, seconds = probed(snapshot)
            print(f"a host's own probe: {seconds:.2f} s, {len(document)} bytes")
            with light_hosts(asked.hosts, standing_in(folder, document, seconds)) as (hosts, ssh):
                inventory = str(write_inventory(folder, lock, hosts, ssh))
                commands = {
                    "connect": [PYINFRA, inventory, "exec", "--", "true"],
                    "status": [PYINFRA, inventory, "tasks/status.py", "--chdir", str(ROOT)],
                }
                for name, one in interleaved(commands, asked.rounds, folder, PYINFRA_PROGRESS="off").items():
                    print(f"{asked.hosts} hosts: {name:8} {one.cells()}")
                print(f"goal of status: {GOAL_S:.0f} s")
    finally:
        shutil.rmtree(folder)


def probed(snapshot: Snapshot) -> tuple[str, float]:
    """What a light host's probe prints, and its best time of five with nobody beside it."""
    with light_hosts(1, snapshot) as ((host,), ssh):
        login = ["-i", ssh["ssh_key"], "-o", f"UserKnownHostsFile={ssh['ssh_known_hosts_file']}", "-o", "BatchMode=yes"]
        command = "s=$(date +%s.%N); sudo sparknode probe; echo $s $(date +%s.%N)"
        argv = ["ssh", *login, f"{ssh['ssh_user']}@{host.address}", command]
        said = [subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout for _ in range(5)]
    times = [[float(part) for part in text.split()[-2:]] for text in said]
    document = said[-1].splitlines()[0]
    assert json.loads(document)["fleet"]["verified"]
    return document, min(end - start for start, end in times)


def standing_in(folder: Path, document: str, seconds: float) -> Snapshot:
    """A host that takes its program for installed, and whose program takes its time and says this."""
    programs = {"sparknode": f"sleep {seconds:.2f}; echo {shlex.quote(document)}", "sha256sum": "cat >/dev/null"}
    archive = folder / "standing-in.tar"
    with tarfile.open(archive, "w") as tar:
        for name, script in programs.items():
            path = folder / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            tar.add(path, f"usr/local/bin/{name}")
    return Snapshot(archives=[archive])


if __name__ == "__main__":
    main()

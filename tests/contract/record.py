"""Records the command lines of real vLLMs into the contracts' table, and prints what changed.

    python -m tests.contract.record [--check] [VERSION ...]

A version that is new is compared with the recorded one before it, the others with their own recording.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from sparkfleet.catalog.contract import version_key
from sparkfleet.catalog.contract_table import CONTRACTS, Table, read_table
from tests.contract.table import Recording, changes, written
from tests.contract.venv import BUILDS, HERE, VenvError, ensure, quiet_environment

TABLE = CONTRACTS / "vllm.json"
TIMEOUT_S = 300


def dump(version: str) -> Recording:
    """The contract as that version of vLLM states it now."""
    command = [str(ensure(version)), str(HERE / "dump_contract.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=quiet_environment(version)
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise VenvError(f"vLLM {version} did not state its contract (exit {done.returncode}):\n{tail}")
    recording: Recording = json.loads(done.stdout)
    return recording


def report(table: Table | None, version: str, now: Recording) -> list[str]:
    """Say what the recording changes, under a line that names what it is compared with."""
    if table is None:
        return [f"{version}: recorded, the first in the table"]
    if version in table.versions:
        found = changes(table.recording(version), now)
        return [f"{version}: {'differs from what was recorded' if found else 'unchanged'}", *found]
    before = [known for known in table.versions if version_key(known) < version_key(version)] or table.versions
    found = changes(table.recording(before[-1]), now)
    return [f"{version}: new; against {before[-1]} it has {len(found)} changes", *found]


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="change nothing; exit 1 if the table would change")
    options.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(BUILDS)}")
    chosen = options.parse_args()
    stale = False
    for version in chosen.versions or BUILDS:
        read_table.cache_clear()
        table = read_table("vllm") if TABLE.exists() else None
        now = dump(version)
        print("\n  ".join(report(table, version, now)), flush=True)
        text = written(table, {version: now})
        stale = stale or not TABLE.exists() or text != TABLE.read_text(encoding="utf-8")
        if not chosen.check:
            TABLE.write_text(text, encoding="utf-8")
    return 1 if stale and chosen.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VenvError as refusal:
        sys.exit(str(refusal))

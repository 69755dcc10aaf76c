"""Records the command-line contract of a real vLLM into catalog/contracts, or checks that it is unchanged.

python -m tests.contract.record [--check] [VERSION ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.contract.venv import HERE, PINS, VenvError, ensure, quiet_environment

CONTRACTS = HERE.parent.parent / "catalog" / "contracts"
TIMEOUT_S = 300


def recorded_path(version: str) -> Path:
    """Where the contract of a version is kept."""
    return CONTRACTS / f"{version}.json"


def dump(version: str) -> str:
    """The contract as that version of vLLM states it now."""
    command = [str(ensure(version)), str(HERE / "dump_contract.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=quiet_environment(version)
    )
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise VenvError(f"vLLM {version} did not state its contract (exit {done.returncode}):\n{tail}")
    return done.stdout


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file would change")
    options.add_argument("versions", nargs="*", metavar="VERSION", help=f"of {', '.join(sorted(PINS))}")
    chosen = options.parse_args()
    stale = False
    for version in chosen.versions or sorted(PINS):
        path, now = recorded_path(version), dump(version)
        same = path.exists() and path.read_text() == now
        if not same and not chosen.check:
            path.write_text(now)
        stale = stale or not same
        print(f"{path.name}: {'unchanged' if same else 'differs' if chosen.check else 'written'}")
    return 1 if stale and chosen.check else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VenvError as refusal:
        sys.exit(str(refusal))

"""A real SGLang beside the real vLLMs of `tests.contract`: its argument parser, on a machine without a GPU.

The wheel is installed without its dependencies; the pins are what its argument module imports. Serving is not possible
on a CPU.

    python -m tests.sglang.environment      records the contract anew into the contracts' table of SGLang
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from sparkfleet.catalog.contract_table import CONTRACTS, read_table
from tests.contract import venv
from tests.contract.table import Recording, changes, written

HERE = Path(__file__).resolve().parent
PINS = HERE / "requirements.txt"
VERSION = "0.5.23"
TABLE = CONTRACTS / "sglang.json"
TIMEOUT_S = 300


def ensure() -> Path:
    """The interpreter of the environment, which is made when it is missing (15 s, 0.9 GB)."""
    torch_sites = venv.site_packages(venv.ensure_torch())
    pins = PINS.read_text()

    def fill(env: Path) -> None:
        venv.install(env, "--requirement", str(PINS))
        (venv.site_packages(env) / "sparkfleet-torch.pth").write_text(f"{torch_sites}\n")

    return venv.made(f"sglang-{VERSION}", f"{pins}\n{torch_sites}", fill) / "bin" / "python"


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `dump.py` in the environment: without arguments it prints the contract, else it parses them."""
    command = [str(ensure()), str(HERE / "dump.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(venv.HERE)}
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)


def dump() -> Recording:
    """The contract as SGLang states it now."""
    done = ask()
    if done.returncode != 0:
        tail = done.stderr[-2000:]
        raise venv.VenvError(f"SGLang {VERSION} did not state its contract (exit {done.returncode}):\n{tail}")
    recording: Recording = json.loads(done.stdout)
    return recording


def main() -> None:
    table, now = read_table("sglang") if TABLE.exists() else None, dump()
    known = table.recording(VERSION) if table and VERSION in table.versions else {"arguments": {}, "values": {}}
    found = changes(known, now)
    print("\n  ".join([f"SGLang {VERSION}: {len(found)} changes", *found]))
    TABLE.write_text(written(table, {VERSION: now}), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except venv.VenvError as refusal:
        raise SystemExit(str(refusal)) from None

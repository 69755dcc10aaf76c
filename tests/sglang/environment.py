"""A real SGLang beside the real vLLMs of `tests.contract`: its argument parser, on a machine without a GPU.

The wheel is installed without its dependencies; the pins are what its argument module imports. Serving is not possible
on a CPU.

    python -m tests.sglang.environment      records the contract anew into catalog/contracts/sglang
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.contract import venv

HERE = Path(__file__).resolve().parent
PINS = HERE / "requirements.txt"
VERSION = "0.5.23"
RECORDED = HERE.parent.parent / "catalog" / "contracts" / "sglang" / f"{VERSION}.json"
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
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def main() -> None:
    done = ask()
    if done.returncode != 0:
        raise SystemExit(
            f"SGLang {VERSION} did not state its contract (exit {done.returncode}):\n{done.stderr[-2000:]}"
        )
    RECORDED.write_text(done.stdout)
    print(f"wrote {RECORDED}")


if __name__ == "__main__":
    main()

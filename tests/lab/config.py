"""Where the lab keeps its things and what its network looks like."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
# Several labs may run on one machine, each with a number of its own: networks, names and folders follow from it.
NUMBER = int(os.environ.get("SPARKFLEET_LAB_NUMBER", "0"))
SUFFIX = f"-{NUMBER}" if NUMBER else ""
LAB_DIR = Path(os.environ.get("SPARKFLEET_LAB_DIR", str(ROOT / f".lab{SUFFIX}")))
CACHE_DIR = Path(os.environ.get("SPARKFLEET_LAB_CACHE", "/var/cache/sparkfleet-lab"))

BRIDGE = f"sflab{2 * NUMBER}"
NETWORK = f"10.83.{2 * NUMBER}"
GATEWAY = f"{NETWORK}.1"
# Knobs and pretended memory travel on a network of their own, so that a fault on the hosts' link never
# reaches the lab's bookkeeping: an engine that ends while its link is down must still give its memory back.
CONTROL_BRIDGE = f"sflab{2 * NUMBER + 1}"
CONTROL_NETWORK = f"10.83.{2 * NUMBER + 1}"
CONTROL_GATEWAY = f"{CONTROL_NETWORK}.1"
CONTROL_NAME = "lab-control"
NETNS = f"sflab{SUFFIX}-"
LINK = f"sfl{NUMBER}x" if NUMBER else "sfl"
CONTROL_LINK = f"sfc{NUMBER}x" if NUMBER else "sfc"
HOSTS_DIR = LAB_DIR / f"hosts{SUFFIX}"
FIRST_HOST = 11
MAX_HOSTS = 32

REGISTRY = f"{GATEWAY}:5000"
HUB_PORT = 8060
CONTROL_PORT = 8070
USER = "spark"

IMAGE_REPOSITORY = "aeon-7/aeon-vllm-ultimate"
DATA_DISK_BYTES = 1 << 40


class LabError(Exception):
    """Something the person running the lab must know; the text is the whole message."""


@dataclass(frozen=True)
class Kind:
    """A kind of host: its root file system, how its Docker hands out the GPU, and where that keeps its images."""

    rootfs: str
    os: str
    gpu_injection: str
    image_store: str
    dgx_release: str


# The hosts take turns: every fourth is like the first again. The last is nearest to DGX OS, whose Docker is 28 or 29.
KINDS = (
    Kind("bookworm", "debian-12", "hook", "graphdriver", "dgx-release.fe.txt"),
    Kind("trixie", "debian-13", "cdi", "graphdriver", "dgx-release.asus.txt"),
    Kind("trixie-forky", "debian-13", "cdi", "containerd", "dgx-release.fe.txt"),
)


@dataclass(frozen=True)
class Host:
    number: int

    @property
    def name(self) -> str:
        return f"spark-{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{FIRST_HOST + self.number - 1}"

    @property
    def control_address(self) -> str:
        return f"{CONTROL_NETWORK}.{FIRST_HOST + self.number - 1}"

    @property
    def kind(self) -> Kind:
        return KINDS[(self.number - 1) % len(KINDS)]

    @property
    def netns(self) -> str:
        return f"{NETNS}{self.number}"

    @property
    def link(self) -> str:
        return f"{LINK}{self.number}"

    @property
    def control_link(self) -> str:
        return f"{CONTROL_LINK}{self.number}"

    @property
    def folder(self) -> Path:
        return HOSTS_DIR / self.name

    @property
    def pidfile(self) -> Path:
        return self.folder / "nspawn.pid"

    def described(self) -> dict[str, str]:
        return {
            "name": self.name,
            "address": self.address,
            "gpu_injection": self.kind.gpu_injection,
            "image_store": self.kind.image_store,
            "os": self.kind.os,
        }


def host_named(name: str) -> Host:
    number = name.removeprefix("spark-")
    if not number.isdigit() or not 1 <= int(number) <= MAX_HOSTS:
        raise LabError(f"{name!r} is no host of the lab; hosts are spark-1 … spark-{MAX_HOSTS}")
    return Host(int(number))


@dataclass(frozen=True)
class State:
    """``state.json``, which inventories and tests read."""

    engine: str
    hosts: tuple[Host, ...]

    def document(self) -> dict[str, object]:
        return {
            "schema": 1,
            "engine": self.engine,
            "gateway": GATEWAY,
            "registry": REGISTRY,
            "hub": f"http://{GATEWAY}:{HUB_PORT}",
            "control": f"http://{GATEWAY}:{CONTROL_PORT}",
            "user": USER,
            "key": str(LAB_DIR / "id_ed25519"),
            "known_hosts": str(LAB_DIR / "known_hosts"),
            "hosts": [host.described() for host in self.hosts],
        }

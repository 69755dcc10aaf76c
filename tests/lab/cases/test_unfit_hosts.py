"""Hosts that misbehave: each is refused by name before any host is changed, and the others go on without it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import control, faults
from tests.lab.cases.conftest import make_bare
from tests.lab.cases.reading import ROOT, STATE, Node, pyinfra, sparkfleet, wait_for
from tests.lab.config import HOSTS_DIR

HOOK, CDI = 0, 1
SUDOERS = "etc/sudoers.d/lab"
SKEW = "import time\n_now = time.time\ntime.time = lambda: _now() + 3600\n"


def inside(node: Node, path: str) -> Path:
    """A file of the host, from outside: for what locks the host's own door."""
    return HOSTS_DIR / node.name / "root" / path


@contextmanager
def typed(node: Node, breaking: str, mending: str) -> Iterator[None]:
    node.sudo(breaking)
    try:
        yield
    finally:
        node.sudo(mending)


@contextmanager
def knobs(node: Node, **settings: Any) -> Iterator[None]:
    control.set_knobs(node.name, **settings)
    try:
        yield
    finally:
        control.clear_knobs(node.name)


@contextmanager
def written(path: Path, text: str | None) -> Iterator[None]:
    old = path.read_text() if path.exists() else None
    path.write_text(text or "")
    try:
        yield
    finally:
        path.unlink() if old is None else path.write_text(old)


@contextmanager
def full_disk(node: Node) -> Iterator[None]:
    faults.fill_disk(node.name, free_bytes=200_000_000)
    try:
        yield
    finally:
        faults.free_disk(node.name)


@dataclass(frozen=True)
class Case:
    host: int
    finding: str
    words: str
    fault: Callable[[Node], AbstractContextManager[None]]


SPEC, HOOK_PATH, ORPHAN = "/etc/cdi/nvidia.yaml", "/usr/bin/nvidia-container-runtime-hook", "/run/VLLM::EngineCore"
CASES = {
    "driver too old": Case(HOOK, "driver.version", "575.51.03", lambda n: knobs(n, gpu_driver="575.51.03")),
    "gpu gone": Case(CDI, "gpu.visible", "No devices were found", lambda n: knobs(n, gpu_mode="no-devices")),
    "gpu gone, exit code 0": Case(
        HOOK, "gpu.visible", "No devices", lambda n: knobs(n, gpu_mode="no-devices", gpu_exit_code=0)
    ),
    "nvidia-smi hangs": Case(CDI, "gpu.visible", "did not answer within", lambda n: knobs(n, gpu_mode="hang")),
    "nvidia-smi says garbage": Case(HOOK, "gpu.visible", "no GPU", lambda n: knobs(n, gpu_mode="garbage")),
    "hook missing": Case(
        HOOK,
        "gpu.container",
        "neither nvidia-container-runtime-hook nor a CDI device",
        lambda n: typed(n, f"mv {HOOK_PATH} {HOOK_PATH}.away", f"mv {HOOK_PATH}.away {HOOK_PATH}"),
    ),
    "stale CDI": Case(
        CDI,
        "cdi.driver",
        "written for driver 580.159.03",
        lambda n: typed(n, f"sed -i.good s/580.178.04/580.159.03/ {SPEC}", f"mv {SPEC}.good {SPEC}"),
    ),
    "disk full": Case(HOOK, "disk.space", "0.2 GB free", full_disk),
    "memory eaten": Case(
        CDI, "mem.available", "gpu_memory_utilization to 0.47 or less", lambda n: knobs(n, mem_available_kib=60_000_000)
    ),
    "port taken": Case(
        HOOK,
        "port.free",
        "port 8000 is taken by python3",
        lambda n: typed(
            n, "systemd-run --quiet --unit=squatter python3 -m http.server 8000", "systemctl stop squatter"
        ),
    ),
    "engine of another unit": Case(
        CDI,
        "gpu.engine",
        "is an engine of orphan.service",
        lambda n: typed(
            n,
            f"cp /bin/sleep {ORPHAN}; systemd-run --quiet --unit=orphan {ORPHAN} 600",
            f"systemctl stop orphan; rm {ORPHAN}",
        ),
    ),
    "docker down": Case(
        HOOK,
        "docker.access",
        "docker does not answer",
        lambda n: typed(n, "systemctl stop docker.socket docker", "systemctl start docker.socket docker"),
    ),
    "sudo needs a password": Case(
        CDI, "sudo.password", "a password is required", lambda n: written(inside(n, SUDOERS), "spark ALL=(ALL) ALL\n")
    ),
    "clock off": Case(
        HOOK,
        "host.skew",
        "+3600 s off",
        lambda n: written(inside(n, "usr/lib/python3/dist-packages/usercustomize.py"), SKEW),
    ),
}


@pytest.fixture(scope="module")
def bare(locked: list[Node]) -> list[Node]:
    for node in locked:
        make_bare(node)
    return locked


def everything(node: Node) -> str:
    """What a deploy could have left: files of the tool and of systemd, images and containers."""
    files = f"find {STATE} /etc/systemd/system /usr/local/bin -printf '%p %T@\\n' | sort"
    return node.sudo(f"{files}; [ ! -S /run/docker.sock ] || timeout 5 docker ps -aq; true")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", CASES)
def test_an_unfit_host_is_refused_by_name_before_any_change(nodes: list[Node], name: str) -> None:
    case = CASES[name]
    before = [everything(node) for node in nodes]
    with case.fault(nodes[case.host]):
        if name == "port taken":
            wait_for("the squatter", lambda: "python3" in nodes[case.host].sudo("ss -ltnp sport = :8000"))
        outcome = pyinfra()
    assert outcome.code != 0, outcome.output
    assert re.search(rf"^fail: {nodes[case.host].name}: {case.finding}: ", outcome.output, re.MULTILINE), outcome.output
    assert case.words in outcome.output
    assert f"--exclude {nodes[case.host].name}" in outcome.output
    assert "Traceback" not in outcome.output
    wait_for("docker", lambda: nodes[case.host].sudo("docker info >/dev/null 2>&1 && echo up", check=False))
    assert [everything(node) for node in nodes] == before


@pytest.mark.usefixtures("bare")
def test_the_fit_hosts_are_deployed_without_the_unfit_one(nodes: list[Node]) -> None:
    unfit, *fit = nodes[2], nodes[0], nodes[1], nodes[3]
    before = everything(unfit)
    faults.break_gpu(unfit.name)
    outcome = pyinfra("--exclude", unfit.name)
    assert outcome.code == 0, outcome.output
    assert all(node.serves() for node in fit)
    assert everything(unfit) == before


def test_a_look_at_serving_hosts_costs_little_and_changes_nothing(nodes: list[Node]) -> None:
    assert pyinfra().code == 0
    # The minutely watch writes down what it saw, whoever looks beside it.
    for node in nodes:
        node.sudo("systemctl stop sparkfleet-watch.timer sparkfleet-watch.service")
    before = [everything(node) for node in nodes]
    outcome = pyinfra(deploy="tasks/preflight.py")
    after = [everything(node) for node in nodes]
    for node in nodes:
        node.sudo("systemctl start sparkfleet-watch.timer")
    assert outcome.code == 0, outcome.output
    assert "the node's probe cannot be read" not in outcome.output
    assert after == before
    document = json.loads((ROOT / ".sparkfleet/runs/preflight.json").read_text())
    assert {host["host"] for host in document["hosts"]} == {node.name for node in nodes}
    assert all(host["fit"] and host["fleet"]["driver"] == "580.178.04" for host in document["hosts"])
    own, children = nodes[1].sudo("sparknode probe >/dev/null; times").splitlines()[:2]
    seconds = [int(m) * 60 + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", children)]
    assert sum(seconds) < 1.5, f"a probe took {sum(seconds):.2f} s of CPU with all that it starts ({own})"


def test_a_bundle_of_a_real_host_is_a_probe_again(nodes: list[Node], tmp_path: Path) -> None:
    node = nodes[1]
    node.sudo("sparknode collect >/tmp/bundle.tar.gz")
    bundle = tmp_path / "bundle.tar.gz"
    bundle.write_bytes(base64.b64decode(node.sudo("base64 /tmp/bundle.tar.gz")))
    everything_in_it = node.sudo("tar -xzOf /tmp/bundle.tar.gz")
    assert "S0000000000000" not in everything_in_it
    assert node.address not in everything_in_it
    chosen = ["--image-tag", "2026-06-11-pr41703", "--hardware", "lab-x86", "--catalog-overlay", "tests/lab/catalog"]
    judged = sparkfleet("check", str(bundle), *chosen, "--gpu-injection", "cdi")
    assert judged.code == 0, judged.output

"""What the lab promises, on real hosts: every kind serves, faults are what they are called, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import cgroups, control, faults, hosts, ledger, lifecycle, machine, registry, toymodels
from tests.lab.config import BRIDGE, IMAGE_REPOSITORY, KINDS, LAB_DIR, REGISTRY, ROOT, Host, LabError

HOOK, CDI, CONTAINERD = KINDS_OF_HOST = [Host(number) for number, _ in enumerate(KINDS, start=1)]
TAG = "2026-06-11-pr41703"
MODELS = "/var/lib/sparkfleet/lab-test"


@pytest.fixture(scope="module")
def lab() -> Iterator[None]:
    _skip_unless_free()
    lifecycle.up(len(KINDS), "sim", lambda _: None)
    yield
    assert lifecycle.down() == []


def _skip_unless_free() -> None:
    wrong = machine.obstacle(len(KINDS))
    if wrong:
        pytest.skip(wrong)
    if lifecycle.STATE.exists():
        pytest.skip("a lab is up already and these tests would end it; run `python -m tests.lab down` first")


# Before the tests that share one lab, because there can be only one on a machine.
@pytest.mark.parametrize("after_s", [0.2, 0.6, 1.2])
def test_down_leaves_nothing_when_up_was_killed_half_way(after_s: float) -> None:
    _skip_unless_free()
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.lab", "up", "--nodes", "2"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # No event to wait for: the driver is to be killed wherever it happens to be.
    time.sleep(after_s)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait(10)
    noted = ledger.entries()
    assert cgroups.PARENT not in Path("/proc/1/cgroup").read_text()
    assert lifecycle.down() == []
    assert lifecycle.down() == []
    for kind, what in noted:
        assert not _stands(kind, what), f"{kind} {what} is still there"
    assert not Path("/sys/class/net", BRIDGE).exists()
    assert not LAB_DIR.exists()
    assert not any((root / cgroups.PARENT).exists() for root in cgroups.hierarchies())


def _stands(kind: str, what: str) -> bool:
    if kind == "mount":
        return ledger.is_mounted(what)
    if kind in ("netns", "link"):
        return Path("/run/netns" if kind == "netns" else "/sys/class/net", what).exists()
    return Path(what).is_absolute() and Path(what).exists()


def until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.1)


def serve(host: Host, backend: str = "flash_attn") -> None:
    """Run the engine as an operator would by hand."""
    for toy, name in ((toymodels.TARGET, "gemma4"), (toymodels.DRAFTER, "gemma4-dflash")):
        transport = f"ssh -F /dev/null -i {hosts.KEY} -o UserKnownHostsFile={hosts.KNOWN_HOSTS} -o BatchMode=yes"
        hosts.ssh(host, f"sudo mkdir -p {MODELS}/{name}")
        source = f"{lifecycle.HUB_STORE / toy.repo / toy.commit}/"
        target = f"spark@{host.address}:{MODELS}/{name}/"
        subprocess.run(
            ["rsync", "-a", "-e", transport, "--rsync-path=sudo rsync", source, target], check=True, timeout=60
        )
    gpu = "--gpus all" if host.kind.gpu_injection == "hook" else "--device nvidia.com/gpu=all"
    drafter = {"method": "dflash", "model": "/models/gemma4-dflash", "num_speculative_tokens": 10}
    speculation = json.dumps({**drafter, "attention_backend": backend})
    hosts.ssh(host, "sudo docker rm -f lab-test", check=False)
    until(lambda: control.state(host.name)["engines"] == [], "the end of the engine before")
    hosts.ssh(
        host,
        f"sudo docker run -d --name lab-test {gpu} --network host -v {MODELS}:/models:ro --entrypoint vllm "
        f"{REGISTRY}/{IMAGE_REPOSITORY}:{TAG} serve /models/gemma4 --served-model-name gemma4 "
        f"--gpu-memory-utilization 0.80 --speculative-config '{speculation}'",
    )


def phase(host: Host) -> str:
    engines = control.state(host.name)["engines"]
    return engines[0]["phase"] if engines else "none"


def available_kib(host: Host) -> int:
    return int(hosts.ssh(host, "awk '/MemAvailable/ {print $2}' /proc/meminfo").stdout)


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("host", KINDS_OF_HOST, ids=lambda host: host.kind.rootfs)
def test_a_host_pulls_serves_and_gives_its_memory_back(host: Host) -> None:
    control.clear_knobs()
    idle = available_kib(host)
    serve(host)
    until(lambda: phase(host) == "ready", "a ready engine")
    assert hosts.ssh(host, "curl -sS localhost:8000/version").stdout == '{"version":"0.22.1","simulated":true}'
    image = hosts.ssh(host, "sudo docker inspect --format '{{.Image}}' lab-test").stdout.strip()
    repository = f"{REGISTRY}/{IMAGE_REPOSITORY}"
    pulled = hosts.ssh(host, f"sudo docker inspect --format '{{{{json .RepoDigests}}}}' {image}").stdout
    assert json.loads(pulled) == [f"{repository}@{registry.digest(f'{IMAGE_REPOSITORY}:{TAG}')}"]
    assert idle - available_kib(host) == 102_028_180
    assert "VLLM::EngineCore" in hosts.ssh(host, "nvidia-smi").stdout
    inside = "sudo docker exec lab-test nvidia-smi -L"
    assert hosts.ssh(host, inside).stdout.startswith("GPU 0: NVIDIA GB10")
    control.set_knobs(host.name, gpu_gone=True, hang_with_health_200=True)
    until(
        lambda: hosts.ssh(host, inside, check=False).stdout == "Failed to initialize NVML: Unknown Error\n", "its loss"
    )
    power = "nvidia-smi --query-gpu=power.draw --format=csv,noheader"
    assert hosts.ssh(host, power).stdout.strip() == "21.40 W"
    control.set_knobs(host.name, gpu_gone=False, hang_with_health_200=False, memory_return_s=2)
    hosts.ssh(host, "sudo docker stop -t 20 lab-test")
    assert available_kib(host) < idle
    until(lambda: available_kib(host) == idle, "the return of the memory")
    assert hosts.ssh(host, "sudo docker inspect --format '{{.State.ExitCode}}' lab-test").stdout.strip() == "0"


@pytest.mark.usefixtures("lab")
def test_a_poisoned_engine_ends_at_the_first_request_with_status_0() -> None:
    control.clear_knobs()
    serve(HOOK, backend="flex_attention")
    until(lambda: phase(HOOK) == "ready", "a ready engine")
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
    status = "curl -s -o /dev/null -w '%{http_code}'"
    assert hosts.ssh(HOOK, f"{status} localhost:8000/health").stdout == "200"
    assert hosts.ssh(HOOK, f"{status} localhost:8000/v1/chat/completions -d '{body}'").stdout == "500"
    ended = "sudo docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' lab-test"
    until(lambda: hosts.ssh(HOOK, ended).stdout.strip() == "exited 0", "the end of the engine")


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("host", KINDS_OF_HOST, ids=lambda host: host.kind.rootfs)
def test_a_power_cut_ends_everything_at_once_and_keeps_the_disks(host: Host) -> None:
    control.clear_knobs()
    serve(host)
    until(lambda: phase(host) == "ready", "a ready engine")
    hosts.ssh(host, "echo kept | sudo tee /var/lib/sparkfleet/kept /root/kept")
    before = hosts.ssh(host, "cat /proc/sys/kernel/random/boot_id").stdout
    faults.power_cut(host.name)
    until(lambda: phase(host) == "none", "the end of the engine")
    assert hosts.ssh(host, "sudo cat /var/lib/sparkfleet/kept /root/kept").stdout == "kept\nkept\n"
    assert hosts.ssh(host, "cat /proc/sys/kernel/random/boot_id").stdout != before
    assert hosts.ssh(host, "systemctl is-system-running --wait").stdout.strip() == "running"


@pytest.mark.usefixtures("lab")
def test_a_host_can_restart_itself() -> None:
    before = hosts.ssh(CDI, "cat /proc/sys/kernel/random/boot_id").stdout
    hosts.ssh(CDI, "sudo systemctl reboot", check=False)

    def restarted() -> bool:
        found = hosts.ssh(CDI, "cat /proc/sys/kernel/random/boot_id", check=False)
        return found.returncode == 0 and found.stdout != before

    until(restarted, "the restart")
    hosts.wait_ready(CDI)


@pytest.mark.usefixtures("lab")
def test_frozen_unplugged_and_full_are_what_they_say() -> None:
    faults.freeze(CDI.name)
    with pytest.raises(LabError, match="did not end within"):
        hosts.ssh(CDI, "true", timeout_s=2)
    faults.thaw(CDI.name)
    faults.link_down(CDI.name)
    assert hosts.ssh(CDI, "true", check=False).returncode == 255
    faults.link_up(CDI.name)
    faults.fill_disk(CDI.name, free_bytes=1 << 20)
    full = hosts.ssh(CDI, "sudo dd if=/dev/zero of=/var/lib/sparkfleet/x bs=1M count=8", check=False)
    assert "No space left on device" in full.stderr
    faults.free_disk(CDI.name)
    faults.break_gpu(CDI.name, "no-devices")
    blind = hosts.ssh(CDI, "nvidia-smi", check=False)
    assert (blind.returncode, blind.stdout) == (6, "No devices were found\n")
    faults.mend_gpu(CDI.name)
    assert hosts.ssh(CDI, "nvidia-smi -L").stdout.startswith("GPU 0: NVIDIA GB10")

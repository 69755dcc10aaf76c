"""The trial of the GPU at staging: which answers of Docker refuse the stage, and which leave it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknode.base.process import Completed, run
from sparknode.base.shape import Node
from sparknode.host.docker import hands_gpu, read_trial
from sparknode.state import releases
from tests.unit.sparknode.builders import release as make
from tests.unit.sparknode.builders import sealed
from tests.unit.sparknode.world import World

DAEMON = "docker: Error response from daemon:"
SEEN = "GPU 0: NVIDIA GB10 (UUID: GPU-0)\n"


@pytest.mark.parametrize(
    ("rc", "stdout", "stderr", "words"),
    [
        (125, "", f'{DAEMON} could not select device driver "" with capabilities: [[gpu]].', "could not select"),
        (125, "", f"{DAEMON} unknown or invalid runtime name: nvidia", "invalid runtime name"),
        (125, "", f"{DAEMON} CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all", "unresolvable"),
        (125, "", f"{DAEMON} failed to mount /tmp/containerd-mount1: invalid argument", "failed to mount"),
        (125, "", f"{DAEMON} failed to create task for container: OCI runtime create failed", "OCI runtime"),
        (125, "", f"{DAEMON} something that nobody has seen yet\n\nRun 'docker run --help'", "nobody has seen"),
        (125, "", "", "did not report why"),
        (126, "", f'{DAEMON} exec: "nvidia-smi": permission denied', "exit code 126"),
        (127, "", f'{DAEMON} exec: "nvidia-smi": executable file not found in $PATH', "executable file not found"),
        (127, "", "nvidia-smi: error while loading shared libraries: libnvidia-ml.so.1", "libnvidia-ml"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver", "", "communicate"),
        (255, "Failed to initialize NVML: Unknown Error", "", "NVML"),
        (0, "No devices were found\n", "", "No devices"),
        (6, "No devices were found\n", "", "No devices"),
        (139, "", "", "no GPU"),
        (0, "", "", "no GPU"),
    ],
)
def test_an_answer_without_a_gpu_refuses(rc: int, stdout: str, stderr: str, words: str) -> None:
    seen, said = read_trial(Completed(("docker", "run"), rc, stdout, stderr))
    assert seen is False
    assert words in said
    assert "could not be asked" not in said


@pytest.mark.parametrize(
    "done",
    [
        Completed(("docker", "run"), None, timeout=20.0),
        Completed(
            ("docker", "run"), 125, "", "docker: Cannot connect to the Docker daemon at unix:///run/docker.sock."
        ),
        Completed(("docker", "run"), 125, "", "failed to connect to the docker API at unix:///var/run/docker.sock"),
        Completed(("docker", "run"), 1, "", "error during connect: Head http://docker: EOF"),
        run(["/nowhere/docker", "run"], 5.0),
    ],
    ids=["time-out", "no daemon", "no daemon, Docker 29", "the daemon hung up", "no docker"],
)
def test_silence_leaves_it_open(done: Completed) -> None:
    seen, said = read_trial(done)
    assert seen is None
    assert "could not be asked" in said


def test_a_gpu_that_is_seen_passes() -> None:
    assert read_trial(Completed(("docker", "run"), 0, SEEN, "WARNING: the platform differs"))[0] is True


@pytest.mark.parametrize("options", [["--shm-size", "32g"], ["--init"], ["--init", "--shm-size", "32g"]])
@pytest.mark.parametrize("older", [False, True])
def test_the_trial_starts_with_an_init_where_the_release_does(tmp_path: Path, options: list[str], older: bool) -> None:
    world = World(tmp_path)
    document = make("new", **({"argv": ["docker", "run", "--rm", *options]} if older else {}))
    if not older:
        document["container"]["options"] = options
    release = releases.from_node(Node(sealed(document), "release"))

    hands_gpu(world.host.system, release)

    (trial,) = [command for command in world.commands if command[:2] == ("docker", "run")]
    assert ("--init" in trial) == ("--init" in options)

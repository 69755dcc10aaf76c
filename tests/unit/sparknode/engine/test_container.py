"""What an engine died of, read out of its last lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from sparknode.base.shape import Node
from sparknode.engine.container import Watch
from sparknode.engine.deaths import cause, read_cause
from sparknode.state.releases import from_node
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import MEMORY_ERROR, Engine, World

FIXTURES = Path(__file__).parents[3] / "fixtures/gpu"
ERROR = "(EngineCore pid=9) ERROR 11-23 08:06:35 [core.py:1] "
API = "(APIServer pid=1) ERROR 11-23 08:06:36 [serving.py:830] "
ECHO = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for …"
GONE = (
    "(APIServer pid=1) WARNING 11-23 08:06:36 [core_client.py:702] [shutdown] MPClient: engine core exited unexpectedly"
)
INIT_ECHO = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
KILLED = "sparkfleet-serve.service: Main process exited, code=exited, status=137/n/a"

# A log, how its cause begins, whether it is want of memory, and whether somebody else ended the engine.
DEATHS: dict[str, tuple[list[str], str | None, bool, bool]] = {
    "memory of vLLM": ([MEMORY_ERROR, INIT_ECHO], "ValueError: Free memory", True, False),
    "memory gate": (
        ["memory-gate: refused: 4.8 GiB available, 97.3 GiB needed"],
        "memory-gate: refused",
        True,
        False,
    ),
    "memory gate that passed": (["memory-gate: 115.9 GiB available", "KeyError: 'x'"], "KeyError: 'x'", False, False),
    "root cause before its echo": (
        [ERROR + "KeyError: \"Reasoning parser 'gemma5' not found\"", INIT_ECHO],
        "KeyError: \"Reasoning parser 'gemma5' not found\"",
        False,
        False,
    ),
    "docker": (
        ["docker: Error response from daemon: could not select device driver."],
        "docker: Error response",
        False,
        False,
    ),
    "torch's older name": (["torch.cuda.OutOfMemoryError: CUDA out of memory."], "torch.cuda.Out", True, False),
    "torch above the echoes of open streams": (
        [ERROR + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", GONE, *[API + ECHO] * 5000],
        "torch.OutOfMemoryError",
        True,
        False,
    ),
    "a CUDA call": ([ERROR + "RuntimeError: CUDA error: out of memory", GONE], "RuntimeError: CUDA error", True, False),
    "cuBLAS": (
        [ERROR + "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"],
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
        True,
        False,
    ),
    "the C++ heap": (
        ["terminate called after throwing an instance of 'std::bad_alloc'"],
        "terminate called",
        True,
        False,
    ),
    "fork": ([ERROR + "OSError: [Errno 12] Cannot allocate memory"], "OSError: [Errno 12]", True, False),
    "the kernel's killer": (
        ["Out of memory: Killed process 4242 (VLLM::EngineCor) total-vm:9kB", GONE, API + ECHO],
        "Out of memory: Killed process 4242",
        True,
        False,
    ),
    "earlyoom": (
        ['sending SIGTERM to process 4242 uid 0 "python3": oom_score 900, VmRSS 90000 MiB', KILLED],
        "sending SIGTERM to process 4242",
        True,
        False,
    ),
    "systemd": (
        ["sparkfleet-serve.service: A process of this unit has been killed by the OOM killer."],
        "sparkfleet-serve.service: A process",
        True,
        False,
    ),
    "the killer took another process": (
        ["Out of memory: Killed process 17 (chrome) total-vm:9kB", ERROR + "KeyError: 'x'", GONE],
        "KeyError: 'x'",
        False,
        False,
    ),
    "the free memory of a good start": (
        [
            "(EngineCore pid=2) INFO 11-28 [gpu_worker.py:857] Free memory on device (139.29/139.8 GiB) on startup. "
            "Desired GPU memory utilization is (0.68, 95.06 GiB).",
            ERROR + "KeyError: 'x'",
        ],
        "KeyError: 'x'",
        False,
        False,
    ),
    "a prompt that speaks of memory": (
        ["(APIServer pid=1) INFO 11-28 14:00:00 [logger.py:1] Received request: prompt: 'CUDA out of memory'", GONE],
        "the engine core exited unexpectedly",
        False,
        False,
    ),
    "a warning about memory": (
        [
            "(EngineCore pid=2) WARNING 11-28 14:00:00 [x.py:1] may run into torch.OutOfMemoryError",
            ERROR + "KeyError: 1",
        ],
        "KeyError: 1",
        False,
        False,
    ),
    "a setting that leaves no room for the cache": (
        [ERROR + "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`."],
        "ValueError: No available memory",
        False,
        False,
    ),
    "a client's bad request before a kill": (
        [API + "ValueError: This model's maximum context length is 4096 tokens", GONE, API + ECHO],
        "the engine core exited unexpectedly",
        False,
        False,
    ),
    "stopped while it loads": (["KeyboardInterrupt: terminated"], "KeyboardInterrupt: terminated", False, True),
    "stopped while it serves": (
        [
            "(APIServer pid=1) INFO 11-28 14:41:15 [launcher.py:100] [shutdown] API server: shutdown triggered",
            "INFO:     Bye",
        ],
        "INFO:     Bye",
        False,
        True,
    ),
    "killed": (["loading", KILLED], "sparkfleet-serve.service: Main process exited", False, True),
    "killed after it had died by itself": (
        [ERROR + "EngineCore encountered a fatal error.", ERROR + "KeyError: 'x'", KILLED],
        "KeyError: 'x'",
        False,
        False,
    ),
    "nothing that looks like it": (["starting", "killed"], "killed", False, False),
    "silence": ([], None, False, False),
}


@pytest.mark.parametrize("death", DEATHS)
def test_cause(death: str) -> None:
    log, expected, for_memory, outside = DEATHS[death]

    found = read_cause(log)

    assert (found.text or "").startswith(expected or "")
    assert (found.text is None) == (expected is None)
    assert (found.memory, found.from_outside) == (for_memory, outside)
    assert cause(log) == (found.text, found.memory)


RECORDED = {
    "core-killed-32-streams.log.gz": ("the engine core exited unexpectedly", False, False),
    "cpu-0.26.0-poisoned-1-request.log": (
        "RuntimeError: Worker failed with error 'Unsupported CPU attention configuration",
        False,
        False,
    ),
    "cuda-oom.log": ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 37.25 GiB", True, False),
    "max-model-len-too-long.log": ("ValueError: To serve at least one request with the model's max", False, False),
    "same-port.log": ("OSError: [Errno 98] Address already in use", False, False),
    "sigterm-at-15s-of-loading.log": ("KeyboardInterrupt: terminated", False, True),
    "stock-flash_attn-drafter-refused.log": ("ValueError: Selected backend AttentionBackendEnum", False, False),
}


def recorded_death(name: str) -> list[str]:
    data = (FIXTURES / "deaths" / name).read_bytes()
    return (gzip.decompress(data) if name.endswith(".gz") else data).decode().splitlines()


@pytest.mark.parametrize("name", RECORDED)
def test_the_cause_of_each_recorded_death(name: str) -> None:
    expected, for_memory, outside = RECORDED[name]

    found = read_cause(recorded_death(name))

    assert (found.text or "").startswith(expected)
    assert (found.memory, found.from_outside) == (for_memory, outside)


def test_every_recorded_death_has_its_cause_written_down() -> None:
    assert {path.name for path in (FIXTURES / "deaths").iterdir()} == set(RECORDED)


def test_want_of_memory_is_found_above_thousands_of_recorded_echoes() -> None:
    words = "(EngineCore pid=3005) ERROR 11-28 14:49:25 [core.py:1330] torch.OutOfMemoryError: CUDA out of memory."
    log = [words, *recorded_death("core-killed-32-streams.log.gz")]

    assert len(log) > 3000
    assert cause(log) == ("torch.OutOfMemoryError: CUDA out of memory.", True)


@pytest.fixture
def started(tmp_path: Path) -> tuple[World, Watch]:
    world = World(tmp_path)
    document = release("tag")
    world.stage(document, Engine())
    world.serve(document)
    watch = Watch(world.host, from_node(Node(document, "release")))
    assert watch.death() is None
    return world, watch


def test_a_container_that_was_replaced_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    assert world.container is not None
    world.container["Id"] = "another"

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the container was replaced by another one")


def test_a_container_that_is_gone_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.container = None

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the container is gone")


def test_a_unit_that_ended_by_itself_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.running = None

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the engine ended and the unit is inactive")


def test_a_restart_is_a_death_though_the_unit_is_active(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.restarts += 1

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the engine died and systemd started it again")


def test_a_daemon_that_does_not_answer_is_no_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.docker_silent = True

    assert watch.death() is None


def test_what_is_shown_of_a_death_ends_with_its_cause(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.log = [*[f"before {number}" for number in range(40)], ERROR + "KeyError: 'x'", GONE, *[API + ECHO] * 3000]
    world.container = None

    death = watch.death()

    assert death is not None
    assert death.reason == "the container is gone: KeyError: 'x'"
    assert death.log[-1].endswith("KeyError: 'x'")
    assert death.log[0] == "before 26"

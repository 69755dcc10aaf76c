"""How far a start is, and when it is late: the engine's phases, and a deadline out of the host's own starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknode.activate.follow import progress
from sparknode.activate.worker import DONE, REVERTED
from sparknode.base.shape import Node
from sparknode.engine.phases import phase
from sparknode.state import journal, releases
from tests.unit.sparknode.acting import OLD, activate
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World

WORKER = "(Worker pid=14570) INFO 11-23 09:02:33 "
# Lines of vLLM 0.22 to 0.32 in the order in which they come.
LOG = [
    (
        "(APIServer pid=1) WARNING 11-23 09:02:21 [vllm.py:1703] Enforce eager set, disabling torch.compile, …",
        None,
    ),
    ("(EngineCore pid=2) INFO 11-23 09:02:27 [core.py:133] Initializing … 'enable_flashinfer_autotune': False", None),
    (WORKER + "[cpu_model_runner.py:68] Starting to load model /models/gemma4...", "weights"),
    ("Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 329.30it/s]", "weights"),
    (WORKER + "[default_loader.py:501] Loading weights took 118.20 seconds", "weights"),
    (WORKER + "[cpu_model_runner.py:75] Loading drafter model...", "weights"),
    (WORKER + "[gpu_model_runner.py:4798] Model loading took 16.25 GiB memory and 130.10 seconds", "compile"),
    (WORKER + "[backends.py:1148] Dynamo bytecode transform time: 4.62 s", "compile"),
    (WORKER + "[backends.py:393] Compiling a graph for compile range (1, 8192) takes 16.14 s", "compile"),
    (WORKER + "[monitor.py:53] torch.compile took 23.50 s in total", "compile"),
    ("(EngineCore pid=2) INFO 11-23 [kv_cache_utils.py:1319] GPU KV cache size: 726,000 tokens", "graphs"),
    (
        "2026-08-19 18:00:14 - INFO - autotuner.py:651 - flashinfer.jit: [Autotuner]: Autotuning process starts ...",
        "autotune",
    ),
    (
        "2026-08-19 18:00:14,841 - INFO - autotuner.py:674 - flashinfer.jit: [Autotuner]: Autotuning process ends",
        "graphs",
    ),
    ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|██| 67/67", "graphs"),
    (WORKER + "[gpu_model_runner.py:5891] Graph capturing finished in 55 secs, took 0.54 GiB", "warm-up"),
    (
        WORKER + "[gpu_worker.py:857] Free memory on device (139.29/139.8 GiB) on startup. Desired GPU memory …",
        "warm-up",
    ),
    ("(EngineCore pid=2) INFO [core.py:340] init engine (profile, create kv cache, warmup model) took 88 s", "server"),
    ("(APIServer pid=1) INFO [base.py:236] Multi-modal warmup completed in 7.486s", "server"),
    ("(APIServer pid=1) INFO 11-23 09:02:36 [entry.py:140] Starting vLLM server on http://127.0.0.1:8200", "server"),
]


def test_the_phase_of_each_line_of_a_start() -> None:
    for count in range(1, len(LOG) + 1):
        assert phase(line for line, _ in LOG[:count]) == LOG[count - 1][1], LOG[count - 1][0]


def recorded_start(seconds: float) -> list[str]:
    """What a recorded cold start had logged after so many seconds."""
    text = (Path(__file__).parents[3] / "fixtures/gpu/starts/dflash-cold.times.log").read_text()
    lines = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return [line for at, _, line in lines if float(at) <= seconds]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(25, None), (27, "weights"), (31, "compile"), (104, "autotune"), (107, "graphs")]
    + [(second, "warm-up") for second in (128, 160, 200, 224)]
    + [(second, "server") for second in (225, 230, 235)],
)
def test_a_recorded_cold_start_has_a_phase_to_its_end(seconds: float, expected: str | None) -> None:
    assert phase(recorded_start(seconds)) == expected


def test_a_recorded_start_of_the_older_runner_goes_through_each_phase() -> None:
    text = (Path(__file__).parents[3] / "fixtures/gpu/starts/v1-nodraft-cold.log").read_text()
    lines = text.splitlines()
    seen = [phase(lines[:count]) for count in range(len(lines))]

    assert list(dict.fromkeys(seen)) == [None, "weights", "compile", "graphs", "autotune", "warm-up", "server"]


def loading(age: float) -> list[str]:
    done = [line for line, _ in LOG[:3]]
    return done + ([LOG[6][0]] if age > 100 else []) + ([LOG[10][0]] if age > 200 else [])


def test_each_phase_is_journalled_when_it_begins(serving: World) -> None:
    new = release("new")
    serving.engines[new["id"]] = Engine(load_s=260.0, log=loading)

    run = activate(serving)

    notes = [record["note"].split(" after ")[0] for record in run.records if record["state"] == "starting"]
    assert notes[1:4] == ["weights", "compile", "graphs"]


def test_the_progress_line_names_the_phase_and_what_is_left(serving: World) -> None:
    serving.engines[release("new")["id"]] = Engine(load_s=260.0, log=loading)
    records = activate(serving).records
    at = next(number for number, record in enumerate(records) if record.get("note", "").startswith("compile"))
    now = (journal.seconds_of(records[at]["t"]) or 0.0) + 50.0

    line = progress(records[: at + 1], now)

    assert line.startswith("starting: engine has loaded for 15")
    assert line.endswith("s left)")
    assert " of at most 1800 s (compile, 16" in line


def prompt_host(serving: World, factor: float | None, known_s: float) -> dict[str, object]:
    """A host that has started this very image before, and a release of it with other arguments."""
    first = release("new", timing__history_factor=factor)
    serving.stage(first, Engine(load_s=known_s))
    assert activate(serving, first).code == DONE
    second = release("new", timing__history_factor=factor, container__args=["serve", "/models/gemma4", "--seed", "1"])
    serving.stage(second, Engine(load_s=1000.0))
    return second


@pytest.mark.parametrize(("known_s", "deadline"), [(100.0, 300), (5.0, 60)])
def test_a_start_is_late_after_a_multiple_of_what_this_host_knows(
    serving: World, known_s: float, deadline: int
) -> None:
    second = prompt_host(serving, 3.0, known_s)

    run = activate(serving, second)

    assert run.code == REVERTED
    assert "ready: /health gave connection refused after" in run.last["error"]
    late = next(record["gate"] for record in run.records if record.get("gate", {}).get("name") == "ready")
    assert late["threshold"] == pytest.approx(deadline, abs=8)


def test_the_way_back_has_the_whole_deadline(serving: World) -> None:
    second = prompt_host(serving, 3.0, 10.0)
    serving.engines[release("new", timing__history_factor=3.0)["id"]].load_s = 500.0

    assert activate(serving, second).code == REVERTED


def test_without_history_or_factor_only_the_deadline_counts(serving: World) -> None:
    assert activate(serving, prompt_host(serving, None, 10.0)).code == DONE


def test_loads_are_those_of_an_image_with_the_same_weights(serving: World) -> None:
    """Another model on the same image loads as long as it loads."""
    assert activate(serving).code == DONE
    document = release("new")
    other = {**document["artefacts"][0], "commit": "b" * 40}
    found = [release("new", serve__port=8001), release("new", artefacts=[other]), OLD]
    keys = [releases.from_node(Node(one, "release")).load_key for one in found]

    known = [journal.loads(journal.read(serving.paths), key) for key in keys]

    assert known == [[pytest.approx(5.0, abs=1.0)], [], []]

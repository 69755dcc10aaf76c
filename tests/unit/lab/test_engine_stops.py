"""How the simulated engine stops and dies, beside what was recorded of vLLM 0.26.0 on a GPU."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sparknode.engine.deaths import CORE_VANISHED, read_cause
from tests.unit.lab.conftest import Served, Start

STOPS = Path(__file__).parents[2] / "fixtures/gpu/stops"
TAG = "2026-07-27-v0.26.0"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STOPS / f"{name}.json").read_text())
    return found


class Streams:
    """Streams that run while the engine is stopped, and how each of them ended."""

    def __init__(self, served: Served, count: int, max_tokens: int) -> None:
        self.served = served
        self.ends: list[str] = []
        self.threads = [threading.Thread(target=self._read, args=(max_tokens,), daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        deadline = time.monotonic() + 10
        while served.counters()["vllm:num_requests_running{}"] < count:
            assert time.monotonic() < deadline

    def _read(self, max_tokens: int) -> None:
        body = {"model": "gemma4-fast", "messages": [{"role": "user", "content": "hi"}], "max_tokens": max_tokens}
        try:
            _, text = self.served.ask("/v1/chat/completions", {**body, "stream": True}, timeout_s=30.0)
        except (OSError, http.client.HTTPException):
            # The process was killed under it.
            return
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        ends = [choice["finish_reason"] for event in events[:-1] for choice in json.loads(event).get("choices", [])]
        error = "error" in json.loads(events[-2])
        assert events[-1] == "[DONE]"
        self.ends.append("error" if error else next(end for end in reversed(ends) if end))


def seconds_until_refused(served: Served) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 5.0:
        try:
            served.get("/health")
        except OSError:
            return time.monotonic() - began
        time.sleep(0.02)
    return 5.0


def refused_at(document: dict[str, Any]) -> float:
    return float(next(row["t"] for row in document["rows"] if row["connect"] == "refused"))


def test_the_port_closes_at_once_and_the_streams_run_on(start: Start) -> None:
    served = start("--shutdown-timeout", "20", tag=TAG, knobs={"tokens_per_second": 50.0})
    streams = Streams(served, 3, 100)

    served.process.send_signal(signal.SIGTERM)

    assert seconds_until_refused(served) <= refused_at(recorded("sigterm-60-streams-longer")) + 0.5
    assert served.process.poll() is None
    for thread in streams.threads:
        thread.join(15)
    assert streams.ends == ["length"] * 3
    assert served.process.wait(10) == 0


def test_without_a_timeout_streams_end_with_abort(start: Start) -> None:
    served = start("--shutdown-timeout", "0", tag=TAG, knobs={"tokens_per_second": 20.0})
    streams = Streams(served, 3, 400)

    served.process.send_signal(signal.SIGTERM)

    document = recorded("sigterm-0")
    assert served.process.wait(10) == document["exit_code"] == 0
    for thread in streams.threads:
        thread.join(5)
    assert set(streams.ends) == {stream["finish"] for stream in document["streams"]} == {"abort"}


def test_a_stream_that_outlives_the_timeout_leaves_a_process_that_only_a_kill_ends(start: Start) -> None:
    document = recorded("sigterm-60-streams-longer")
    assert (document["exit_code"], document["rows"][-1]["alive"]) == (None, True)
    served = start("--shutdown-timeout", "1", tag=TAG, knobs={"tokens_per_second": 5.0})
    streams = Streams(served, 2, 400)

    served.process.send_signal(signal.SIGTERM)

    with pytest.raises(subprocess.TimeoutExpired):
        served.process.wait(4)
    assert streams.ends == []
    served.process.kill()
    assert served.process.stdout is not None
    log = served.process.stdout.read()
    assert "force killing remaining processes" in log
    assert "Waiting for connections to close. (CTRL+C to force quit)" in log


def test_a_stop_while_it_loads_waits_for_the_whole_timeout_and_fails(start: Start) -> None:
    served = start("--shutdown-timeout", "2", tag=TAG, knobs={"load_s": 60.0}, ready=False)
    time.sleep(1.0)
    began = time.monotonic()

    served.process.send_signal(signal.SIGTERM)

    assert served.process.wait(20) == 1
    assert time.monotonic() - began >= 1.9
    assert served.process.stdout is not None
    found = read_cause(served.process.stdout.read().splitlines())
    assert (found.text, found.from_outside) == ("KeyboardInterrupt: terminated", True)


def test_a_killed_core_ends_each_stream_with_an_error_and_buries_its_cause(start: Start) -> None:
    document = recorded("kill-core-24")
    served = start(tag=TAG, knobs={"tokens_per_second": 20.0, "exit_after_ready": 3.0})
    streams = Streams(served, 4, 400)

    assert served.process.wait(15) == document["exit_code"] == 0
    for thread in streams.threads:
        thread.join(5)
    assert streams.ends == ["error"] * 4
    assert all(json.loads(stream["error"]) for stream in document["streams"])
    assert served.process.stdout is not None
    log = served.process.stdout.read().splitlines()
    assert len([line for line in log if "EngineDeadError" in line]) > 4
    assert read_cause(log).text == "RuntimeError: the lab told this engine to end"


def test_a_core_that_was_killed_leaves_no_reason(start: Start) -> None:
    served = start(tag=TAG, knobs={"core_killed": True}, ready=False)

    assert served.process.wait(20) == 0
    assert served.process.stdout is not None
    assert read_cause(served.process.stdout.read().splitlines()).text == CORE_VANISHED

"""The watch and a real vLLM on a CPU: a long prefill is left alone, and a core that stops while idle is found.

The looks come faster than each minute and the rules' times are shorter alike. The engine is real, only its model is
tiny.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.shape import Node
from sparknode.base.system import RealSystem
from sparknode.engine.client import Chat, Engine, in_flight, total
from sparknode.state.release import Release, WatchRules
from sparknode.state.releases import from_node
from sparknode.watchdog import liveness
from sparknode.watchdog.liveness import Glimpse, Pulse
from sparknode.watchdog.lookout import beat_of
from tests.contract import venv
from tests.lab import labmodels
from tests.unit.sparknode.builders import WATCH, release

VERSION = "0.32.0"
READY_S = 400.0
LOOK_S = 0.5
# A minute of the field is LOOK_S here.
RULES = WatchRules(**{**WATCH, "stalled_s": 2 * LOOK_S})
PROMPT_TOKENS = 30_000


class Served:
    """A real vLLM and the pulse that looks at it take."""

    def __init__(self, process: subprocess.Popen[bytes], document: Release) -> None:
        self.process = process
        self.engine = Engine(RealSystem(), document, None)
        self.pulse: Pulse | None = None
        self.beats: list[tuple[float, ...]] = []

    def look(self) -> str | None:
        """One look as the watch takes it; why the engine would be restarted, or None."""
        samples = self.engine.metrics()
        speaks = bool(samples) or self.engine.health().status is not None
        seen = Glimpse(time.monotonic(), speaks, in_flight(samples), beat_of(samples))
        self.pulse = liveness.after(self.pulse, seen, RULES.stalled_s, lambda: self.engine.answers(1.0))
        self.beats.append(seen.beat)
        return liveness.stalled(self.pulse, None, RULES)

    def core(self) -> int:
        """The process id of the engine's core."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                ours = os.getpgid(int(folder.name)) == self.process.pid
                if ours and b"EngineCore" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except OSError:
                continue
        pytest.fail("no process of this engine is called EngineCore")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("real")
    labmodels.write_all(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    document = from_node(Node(release("real", serve__port=port, serve__served_names=["spelling"]), "release"))
    arguments = f"serve {folder}/target --served-model-name spelling --host 127.0.0.1 --port {port} --enforce-eager"
    # Chunks so small that the prompt takes as long as one of the field does.
    arguments += " --max-model-len 32768 --max-num-seqs 8 --max-num-batched-tokens 64 --enable-chunked-prefill"
    arguments += " --kv-cache-memory-bytes 268435456 --no-enable-prefix-caching"
    command = [str(venv.ensure(VERSION)), "-m", "vllm.entrypoints.cli.main", *arguments.split()]
    log = (folder / "log").open("wb")
    environment = venv.quiet_environment(VERSION)
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        found = Served(process, replace(document, timing=replace(document.timing, request_timeout_s=300.0)))
        until = time.monotonic() + READY_S
        while found.engine.health().status != 200:
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
            time.sleep(0.5)
        assert found.engine.chat("hello", 4).problem is None
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def looking(served: Served, until: Callable[[], bool], longest_s: float) -> str | None:
    """Look until something holds or the engine would be restarted."""
    ends = time.monotonic() + longest_s
    while not until() and time.monotonic() < ends:
        time.sleep(LOOK_S)
        cure = served.look()
        if cure:
            return cure
    return None


def test_a_prompt_of_30_000_tokens_is_left_alone(served: Served) -> None:
    answers: list[Chat] = []
    count = served.engine.count_tokens("spell " * 1000) or 1000
    text = "spell " * int(PROMPT_TOKENS / count * 1000)
    asking = threading.Thread(target=lambda: answers.append(served.engine.chat(text, 8)))
    began: Any = time.monotonic()
    asking.start()

    cure = looking(served, lambda: not asking.is_alive(), 300.0)

    asking.join(300)
    assert cure is None, f"restarted after {time.monotonic() - began:.1f} s"
    assert answers[0].prompt_tokens > PROMPT_TOKENS * 0.9, answers[0]
    # Without the share of the cache in use there was no movement for longer than a hang is waited for.
    tokens = [(beat[0], beat[1], beat[2]) for beat in served.beats]
    still = max(tokens.count(step) for step in tokens)
    assert still * LOOK_S > RULES.stalled_s


def test_a_core_that_stops_while_idle_is_found(served: Served) -> None:
    assert looking(served, lambda: False, 5.0) is None
    core = served.core()
    os.kill(core, signal.SIGSTOP)
    try:
        cure = looking(served, lambda: False, 10 * 60 * LOOK_S / 10)
        samples = served.engine.metrics()
        assert (total(samples, "vllm:num_requests_running"), served.engine.health().status) == (0.0, 200)
        assert cure is not None
        assert "nothing ran, and" in cure
    finally:
        os.kill(core, signal.SIGCONT)
    assert looking(served, lambda: False, 5.0) is None or served.engine.answers(30.0)

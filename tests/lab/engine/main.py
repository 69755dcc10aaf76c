"""``vllm``: from the command line to a served model, in vLLM's order and with its log lines and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from tests.lab.engine import logs, stops
from tests.lab.engine.cli import Contract, fixtures, load_contract, non_default, parse, unknown_environment
from tests.lab.engine.knobs import Knobs
from tests.lab.engine.link import ADDRESS_VARIABLE, Link
from tests.lab.engine.metrics import Metrics, template
from tests.lab.engine.server import Server
from tests.lab.engine.settings import ConfigError, LoadError, Settings, check_load, resolve
from tests.lab.engine.sim import KILLED, Engine
from tests.lab.engine.tags import DEFAULT, TAGS, Tag

TAG_VARIABLE = "SPARKFLEET_LAB_TAG"
NOTE = "SIMULATED ENGINE of the sparkfleet lab: no GPU, no weights and no model behind this server"
GIB = 1 << 20
STATISTICS_S = 10.0
# Where the guest's nvidia-smi looks when it runs inside a container.
GPU_STATE = Path("/tmp/sparkfleet-lab-gpu.json")


def main(argv: list[str]) -> int:
    tag = TAGS[os.environ.get(TAG_VARIABLE) or DEFAULT]
    if argv[:1] in (["--version"], ["-v"]):
        print(f"{tag.vllm} (simulated by the sparkfleet lab)")
        return 0
    if argv[:1] != ["serve"]:
        print("usage: vllm [-h] [-v] {serve} ...", file=sys.stderr)
        if argv[:1] in (["-h"], ["--help"]):
            return 0
        print(f"vllm: error: invalid choice: {argv[0] if argv else ''!r} (choose from 'serve')", file=sys.stderr)
        return 2
    contract = load_contract(tag.recorded_contract)
    arguments = parse(contract, argv[1:])
    return Run(tag, contract, arguments).run()


class Run:
    def __init__(self, tag: Tag, contract: Contract, arguments: argparse.Namespace) -> None:
        self.tag = tag
        self.contract = contract
        self.arguments = arguments
        self.stop = threading.Event()
        self.link = Link(tag.name)

    def knobs(self) -> Knobs:
        return self.link.current()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())
        self._banner()
        if self.knobs().exit_0_loop:
            return 0
        try:
            self._check_environment()
            settings = resolve(self.arguments, self.contract, self.tag)
            listener = self._bind(settings)
            self._take_memory(settings)
            if not self._load(settings):
                return stops.interrupted_load(settings.shutdown_timeout_s)
        except ConfigError as error:
            return self._refuse("APIServer", str(error))
        except LoadError as error:
            self._refuse("EngineCore", str(error))
            logs.fail("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
            return 1
        return self._serve(settings, listener)

    def _banner(self) -> None:
        art = ("", "       █     █     █▄   ▄█", f" ▄▄ ▄█ █     █     █ ▀▄▀ █  version {self.tag.vllm}")
        for line in (*art, f"  █▄█▀ █     █     █     █  {NOTE}", ""):
            logs.info("api_utils.py:347", line)
        shown = non_default(self.arguments, self.contract)
        logs.info("api_utils.py:286", f"non-default args: {shown}")

    def _check_environment(self) -> None:
        unknown = unknown_environment(self.contract, self.tag.version)
        for name in unknown:
            logs.warning("envs.py:1818", f"Unknown vLLM environment variable detected: {name}")
        if unknown and getattr(self.arguments, "fail_on_environ_validation", False):
            raise ConfigError(f"ValueError: Unknown vLLM environment variable detected: {unknown[0]}")

    def _bind(self, settings: Settings) -> socket.socket:
        """Bound and deaf: until the model is loaded a connection is refused."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.tag.version < (0, 25):
            # These versions let a second server of the same user take the same port without a word.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigError(f"OSError: [Errno {error.errno}] {os.strerror(error.errno or 0)}") from error
        return listener

    def _take_memory(self, settings: Settings) -> None:
        grant = self.link.hold(settings.utilization)
        if grant is None or grant.granted:
            return
        found = f"{grant.available_kib / GIB:.2f}/{grant.total_kib / GIB:.2f} GiB"
        wanted = f"{settings.utilization}, {grant.needed_kib / GIB:.2f} GiB"
        raise LoadError(
            f"ValueError: Free memory on device cuda:0 ({found}) on startup is less than desired GPU memory "
            f"utilization ({wanted}). Decrease GPU memory utilization or reduce GPU memory used by other processes."
        )

    def _load(self, settings: Settings) -> bool:
        """Go through the phases of a start; False when told to stop meanwhile."""
        knobs = self.knobs()
        total = knobs.load_s + knobs.slow_load_s
        engine = "EngineCore"
        logs.info(
            "core.py:133",
            f"Initializing a V1 LLM engine (v{self.tag.vllm}) with config: model={settings.root!r}",
            process=engine,
        )
        self.link.tell("loading")
        logs.info("gpu_model_runner.py:4712", f"Starting to load model {settings.root}...", process=engine)
        logs.info(
            "weight_utils.py:567",
            "Filesystem type for checkpoints: EXT4. Checkpoint size: 0.01 GiB",
            process=engine,
        )
        if self._waited(total * 0.6):
            return False
        check_load(self.arguments, settings, self.tag)
        if knobs.load_error:
            raise LoadError(knobs.load_error)
        logs.info("default_loader.py:397", f"Loading weights took {total * 0.6:.2f} seconds", process=engine)
        logs.info(
            "gpu_model_runner.py:4798",
            f"Model loading took 16.25 GiB memory and {total * 0.6:.2f} seconds",
            process=engine,
        )
        if self._waited(total * 0.2):
            return False
        logs.info("backends.py:917", f"torch.compile takes {total * 0.2:.2f} s in total", process=engine)
        logs.info("kv_cache_utils.py:1319", "GPU KV cache size: 726,000 tokens", process=engine)
        concurrency = 726_000 / settings.max_model_len
        logs.info(
            "kv_cache_utils.py:1324",
            f"Maximum concurrency for {settings.max_model_len:,} tokens per request: {concurrency:.2f}x",
            process=engine,
        )
        if self._waited(total * 0.2):
            return False
        logs.info(
            "gpu_model_runner.py:5891",
            f"Graph capturing finished in {total * 0.2:.0f} secs, took 0.54 GiB",
            process=engine,
        )
        while self.knobs().never_ready:
            if self._waited(0.1):
                return False
        return True

    def _waited(self, seconds: float) -> bool:
        return self.stop.wait(seconds)

    def _refuse(self, process: str, message: str) -> int:
        logs.error("core.py:1136", f"Traceback (most recent call last):\n{message}", process=process)
        logs.fail(message)
        return 1

    def _serve(self, settings: Settings, listener: socket.socket) -> int:
        length = settings.speculation.tokens if settings.speculation else None
        metrics = Metrics(template(fixtures(), self.tag.version), settings.served_names[0], length)
        engine = Engine(settings, self.tag, metrics, self.knobs)
        server = Server(engine, self.tag)
        server.socket.close()
        server.socket = listener
        server.server_activate()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        logs.info("api_server.py:1351", f"Starting vLLM server on http://{settings.host}:{settings.port}")
        logs.uvicorn(f"Started server process [{os.getpid()}]")
        logs.uvicorn("Waiting for application startup.")
        logs.uvicorn("Application startup complete.")
        self._show_gpu()
        self.link.tell("ready")
        self._live(engine)
        if engine.dead:
            stops.die(engine, server, self.knobs().death_grace_s, self.stop)
        else:
            stops.shut_down(engine, server, settings.shutdown_timeout_s)
        self.link.close()
        return 0

    def _live(self, engine: Engine) -> None:
        """Until the engine dies or somebody ends it."""
        ready = time.monotonic()
        reported, before = ready, (0, 0, 0)
        while not self.stop.wait(0.05) and not engine.died.is_set():
            self._show_gpu()
            limit = self.knobs().exit_after_ready
            if self.knobs().core_killed:
                engine.die(KILLED)
            if limit is not None and time.monotonic() - ready >= limit:
                engine.die("RuntimeError: the lab told this engine to end")
            if time.monotonic() - reported >= STATISTICS_S:
                reported = time.monotonic()
                before = _statistics(engine, before)

    def _show_gpu(self) -> None:
        """Take the GPU away from this container, or give it back: hook injection loses it at a daemon-reload."""
        gone = self.knobs().gpu_gone
        if gone != GPU_STATE.exists() and ADDRESS_VARIABLE in os.environ:
            GPU_STATE.write_text('{"mode": "lost"}') if gone else GPU_STATE.unlink()


def _statistics(engine: Engine, before: tuple[int, int, int]) -> tuple[int, int, int]:
    logs.info("loggers.py:259", f"Engine 000: Running: {engine.running} reqs, Waiting: 0 reqs")
    counters = engine.counters
    now = (counters.drafts, counters.draft_tokens, counters.accepted)
    drafts, drafted, accepted = (new - old for new, old in zip(now, before, strict=True))
    if drafts:
        logs.info(
            "metrics.py:101",
            f"SpecDecoding metrics: Mean acceptance length: {1 + accepted / drafts:.2f}, Accepted: {accepted} tokens, "
            f"Drafted: {drafted} tokens, Avg Draft acceptance rate: {100 * accepted / drafted:.1f}%",
        )
    return now

"""A pretended node: systemd, Docker, the engine, the memory and the clock, in one small model of cause and effect.

It knows nothing of the code under test but the commands that a real node would be given.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparknode.base.http import Answer, Request
from sparknode.base.paths import ACTIVATE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host
from tests.unit.sparknode.builders import container_of, link, point, put_release

TOTAL_KIB = 127_535_224
MEMORY_ERROR = (
    "(EngineCore pid=7) ERROR 11-23 08:06:35 [core.py:1136] ValueError: Free memory on device cuda:0 (8.88/121.69 GiB) "
    "on startup is less than desired GPU memory utilization (0.8, 97.35 GiB). Decrease GPU memory utilization."
)


@dataclass
class Engine:
    """How the engine of one release behaves."""

    load_s: float = 5.0
    dies_after_s: float | None = None
    dies_on_chat: bool = False
    last_words: list[str] = field(default_factory=lambda: ["INFO loading"])
    never_ready: bool = False
    restarts: bool = True
    acceptance: float = 0.6
    drafts: bool = True
    chat: Callable[[dict[str, Any]], Answer] | None = None
    version: str = "0.22.1+cpu"
    names: list[str] | None = None
    root: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    decay_s: float | None = None
    log: Callable[[float], list[str]] | None = None
    ticks_s: float = 0.5


@dataclass
class World:
    """One node. Sleeping is what lets time pass."""

    root: Path
    engines: dict[str, Engine] = field(default_factory=dict)
    clock: float = 0.0
    running: str | None = None
    started_at: float = 0.0
    restarts: int = 0
    other_units: str = ""
    failed: bool = False
    container: dict[str, Any] | None = None
    containers_made: int = 0
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped_at: float = -1e9
    memory_return_s: float = 4.0
    memory_never_returns: bool = False
    stop_hangs: bool = False
    docker_silent: bool = False
    # Of images without an architecture, which are not whole: whether their layers stand unpacked.
    unpacked: bool = True
    stranger_on_port: bool = False
    listeners: list[int] = field(default_factory=list)
    requests_running: float = 0.0
    drain_rate: float = 1.0
    counters: dict[str, float] = field(default_factory=lambda: {"drafts": 0, "draft_tokens": 0, "accepted_tokens": 0})
    log: list[str] = field(default_factory=list)
    commands: list[tuple[str, ...]] = field(default_factory=list)
    boots: int = 0
    # The unit that systemd has read; None where it reads the file at the next start. What it says of an older file than
    # the one it has read is that no reload is needed (fragment_mtime_newer in src/core/unit.c).
    unit_read: str | None = None
    retrying: bool = False
    # What systemd does when it's told to start the activation's unit.
    on_work: Callable[[], Completed] | None = None
    worker_lives: bool = False
    # What systemd calls the activation's unit where that is neither of the two.
    worker_unit: str = ""
    shutting_down: bool = False
    # Until when systemd does not answer.
    manager_gone_until: float = -1.0
    on_sleep: Callable[[], None] | None = None
    on_command: Callable[[], None] | None = None
    requests: list[Request] = field(default_factory=list)
    hooks: dict[str, str | None] = field(default_factory=dict)
    power_w: float = 40.0
    clock_mhz: float = 2400.0
    busy_percent: float = 96.0
    run_said: str = "GPU 0: NVIDIA GB10 (UUID: GPU-0)"
    gpu_said: str = "GPU 0: NVIDIA GB10 (UUID: GPU-0)"
    beat: float = 0.0
    kv_use: float = 0.0

    def __post_init__(self) -> None:
        (self.root / "proc").mkdir(parents=True, exist_ok=True)
        self._write_meminfo()
        self._write_boot_id()

    def _write_boot_id(self) -> None:
        self.paths.boot_id.parent.mkdir(parents=True, exist_ok=True)
        self.paths.boot_id.write_text(f"boot-{self.boots}\n")

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    @property
    def host(self) -> Host:
        return Host(self.paths, self)

    # What a test arranges.

    def stage(self, document: dict[str, Any], engine: Engine | None = None) -> str:
        release_id = put_release(self.paths, document)
        image = document["image"]
        self.images[image["reference"]] = {
            "Id": image["image_ids"][0],
            "Architecture": image["architecture"],
            "RepoDigests": [f"{image['repository']}@{image['digest']}"],
        }
        self.engines[release_id] = engine or Engine()
        return release_id

    def serve(self, document: dict[str, Any]) -> None:
        """Make a staged release current, verified and running."""
        point(self.paths, "current", document["id"])
        point(self.paths, "verified", document["id"])
        link(
            self.paths.unit, os.path.relpath(self.paths.data / "current" / self.paths.unit.name, self.paths.unit.parent)
        )
        link(self.paths.enabled, f"../{self.paths.unit.name}")
        self._start()
        self.clock += 100.0
        self.commands.clear()

    @property
    def working(self) -> bool:
        """Is there a worker in the activation's unit?"""
        return self.worker_lives

    @property
    def enabled(self) -> bool:
        return self.paths.enabled.is_symlink()

    def power_cut(self) -> None:
        """Everything that lived is gone; files stay."""
        self.boots += 1
        self._write_boot_id()
        self.running, self.container, self.failed, self.restarts = None, None, False, 0
        self.stopped_at, self.unit_read = -1e9, None

    def boot(self) -> None:
        """What systemd does once the activation's unit is ready."""
        if self.enabled:
            self._start()

    # Time.

    def spawn_process(self, pid: int, command: str, cgroup: str) -> None:
        folder = self.root / f"proc/{pid}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
        (folder / "cgroup").write_text(f"0::{cgroup}\n")

    def kill(self, pid: int) -> None:
        shutil.rmtree(self.root / f"proc/{pid}")

    def now(self) -> float:
        return 1_795_000_000.0 + self.clock

    def monotonic(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.clock += seconds
        self.requests_running = max(0.0, self.requests_running - self.drain_rate * seconds)
        self._write_meminfo()
        self._maybe_die()
        if self.on_sleep:
            self.on_sleep()

    def _write_meminfo(self) -> None:
        returned = self.clock - self.stopped_at >= self.memory_return_s and not self.memory_never_returns
        free = 5_000_000 if self.running or not returned else TOTAL_KIB - 6_000_000
        text = f"MemTotal: {TOTAL_KIB} kB\nMemFree: {free // 2} kB\nMemAvailable: {free} kB\nSwapTotal: 0 kB\n"
        (self.root / "proc/meminfo").write_text(text)

    # The serving unit.

    def _start(self) -> None:
        current = json.loads((self.paths.data / "current/release.json").read_text())
        self.unit_read = self.unit_read or current["unit"]
        others = (self.paths.release_dir(name) / "release.json" for name in self.paths.staged())
        texts = (path.read_text() for path in others if current["unit"] != self.unit_read)
        document = next((found for text in texts if (found := json.loads(text))["unit"] == self.unit_read), current)
        if self.memory_never_returns and document["memory"]:
            # The unit's own gate.
            self.restarts, self.retrying = self.restarts + 1, True
            self.log = ["memory-gate: refused: 4.8 GiB available, 97.3 GiB needed; stop what holds the memory"]
            return
        self.running, self.started_at, self.failed = document["id"], self.clock, False
        self.containers_made += 1
        self.container = {**container_of(document, f"c{self.containers_made}"), **self._engine.changes}
        self.counters = dict.fromkeys(self.counters, 0.0)
        self.log = []

    def _stop(self) -> None:
        if self.running:
            self.stopped_at = self.clock
        self.running, self.container = None, None
        self._write_meminfo()

    @property
    def _engine(self) -> Engine:
        return self.engines[self.running or ""]

    @property
    def _age(self) -> float:
        return self.clock - self.started_at

    def _maybe_die(self) -> None:
        if self.running and self._engine.dies_after_s is not None and self._age >= self._engine.dies_after_s:
            self._die()

    def _die(self) -> None:
        engine = self._engine
        words = list(engine.last_words)
        self._stop()
        if engine.restarts:
            self.restarts += 1
            self._start()
        else:
            self.failed = True
        self.log = words

    # The programs.

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        command = tuple(argv)
        self.commands.append(command)
        if self.on_command:
            self.on_command()
        if command[0] == "systemctl":
            return self._systemctl(command, timeout)
        if command[0] in ("docker", "dockerd") and self.docker_silent:
            return Completed(command, None, timeout=timeout)
        if command[0] in ("docker", "dockerd"):
            return self._docker(command) if command[0] == "docker" else self._dockerd(command)
        if command[0] == "journalctl":
            phases = self._engine.log(self._age) if self.running and self._engine.log else []
            return Completed(command, 0, "\n".join([*self.log, *phases]) + "\n")
        if command[0] == "nvidia-smi" and command[1].startswith("--query-gpu=power.draw,"):
            return Completed(command, 0, f"{self.power_w}, {self.clock_mhz}, {self.busy_percent}\n")
        if command[0] == "nvidia-smi" and "--query-gpu=power.draw" in command:
            return Completed(command, 0, f"{self.power_w}\n")
        if command[0] == "ss" and self.listeners:
            lines = [f'LISTEN 0 128 0.0.0.0:8000 0.0.0.0:* users:(("x",pid={pid},fd=3))' for pid in self.listeners]
            return Completed(command, 0, "\n".join(lines))
        if command[0] in self.hooks:
            why = self.hooks[command[0]]
            return Completed(command, 1 if why else 0, "", why or "")
        return Completed(command, 127, "", "not found")

    def stream(self, argv: Sequence[str], timeout: float, on_line: Callable[[str], None]) -> Completed:
        command = tuple(argv)
        self.commands.append(command)
        on_line("4f4fb700ef54: Pulling fs layer")
        pulled = self.images.get(command[-1])
        return Completed(command, 0 if pulled else 1, "" if pulled else "manifest unknown", timeout=timeout)

    def _systemctl(self, command: tuple[str, ...], timeout: float) -> Completed:
        verb = command[1]
        if self.clock < self.manager_gone_until:
            return Completed(command, 1, "", "Failed to connect to bus: Connection reset by peer")
        if command[-1] == ACTIVATE_UNIT:
            if verb == "start":
                return self.on_work() if self.on_work else Completed(command, 0)
            return Completed(command, 0, self.worker_unit or ("active\n" if self.working else "inactive\n"))
        if "shutdown.target" in command:
            return Completed(command, 0, f"ActiveState=inactive\nJob={int(self.shutting_down)}\n")
        if verb == "show":
            return Completed(command, 0, f"{self._shown()}\n{self.other_units}")
        if verb == "daemon-reload":
            self.unit_read = None
        if verb == "stop":
            if self.stop_hangs:
                return Completed(command, None, timeout=timeout)
            self._stop()
            self.failed, self.restarts, self.retrying = False, 0, False
        if verb == "restart":
            self._stop()
            self.memory_return_s = 0.0
        if verb in {"start", "restart"} and not self.running:
            self._start()
        if verb == "disable":
            self.paths.enabled.unlink(missing_ok=True)
        return Completed(command, 0)

    def _shown(self) -> str:
        active = "failed" if self.failed else "active" if self.running else "inactive"
        load = "loaded" if self.paths.unit.exists() else "not-found"
        sub = "running" if self.running else "dead"
        if self.retrying:
            active, sub = "activating", "auto-restart"
        keys = {"LoadState": load, "ActiveState": active, "SubState": sub}
        keys |= {"Result": "exit-code" if self.failed else "success", "NRestarts": str(self.restarts)}
        keys |= {"NeedDaemonReload": "no", "Job": "0"}
        return "".join(f"{key}={value}\n" for key, value in keys.items())

    def _dockerd(self, command: tuple[str, ...]) -> Completed:
        if command[2] in ("/info", "/images/json", "/containers/json"):
            rows = [{"RepoTags": [name], **image} for name, image in self.images.items()]
            known = {"/info": {"DockerRootDir": "/var/lib/docker"}, "/images/json": rows, "/containers/json": []}
            return Completed(command, 0, json.dumps(known[command[2]]))
        kind, _, name = command[2].removesuffix("/json").removeprefix("/").partition("/")
        by_id = [image for image in self.images.values() if image["Id"] == name]
        found = self.container if kind == "containers" else self.images.get(name, next(iter(by_id), None))
        if found is None:
            return Completed(command, 404, "", f"No such {kind[:-1]}: {name}")
        return Completed(command, 0, json.dumps(found))

    def _docker(self, command: tuple[str, ...]) -> Completed:
        if command[1:3] == ("image", "rm"):
            return Completed(command, 0 if self.images.pop(command[3], None) else 1)
        if command[1] == "create":
            able = self.unpacked or bool(self.images[command[-1]].get("Architecture"))
            return Completed(command, 0 if able else 1, "", "" if able else "content digest sha256:00: not found")
        if command[1] == "save":
            whole = bool(self.images[command[4]].get("Architecture"))
            archive_of(Path(command[3]), {command[4]: self.images[command[4]]}, ["layer"] if whole else [])
            return Completed(command, 0)
        if command[1] == "load":
            with tarfile.open(command[4]) as archive:
                self.images |= json.load(archive.extractfile("images.json") or io.BytesIO(b"{}"))
            return Completed(command, 0)
        if command[1] == "tag":
            found = [image for image in self.images.values() if image["Id"] == command[2]]
            self.images |= {command[3]: found[0]} if found else {}
            return Completed(command, 0 if found else 1, "", "" if found else "No such image")
        if command[1] == "exec":
            bad = 0 if self.gpu_said.startswith("GPU") else 1
            return Completed(command, bad, self.gpu_said)
        if command[1] == "run":
            seen = self.run_said.startswith("GPU")
            return Completed(command, 0 if seen else 125, self.run_said if seen else "", "" if seen else self.run_said)
        if command[1] == "rm":
            # Any other name is that of a trial, which nothing else looks at.
            self.container = None if "sparkfleet-serve" in command else self.container
            return Completed(command, 0)
        return Completed(command, 1, "", "unknown docker command")

    # The engine's port.

    def http(self, request: Request) -> Answer:
        self.requests.append(request)
        if request.host != "127.0.0.1":
            why = self.hooks[f"{request.method} {request.path}"]
            return Answer(500, why.encode()) if why else Answer(204)
        if self.stranger_on_port:
            return Answer(200)
        if not self.running or self._engine.never_ready or self._age < self._engine.load_s:
            return Answer(None, refused=True, error="connection refused")
        document = json.loads((self.paths.release_dir(self.running) / "release.json").read_text())
        handlers = {
            "/health": lambda: Answer(200),
            "/version": lambda: self._json({"version": self._engine.version}),
            "/v1/models": lambda: self._json({"data": self._cards(document["serve"])}),
            "/metrics": lambda: Answer(200, self._metrics().encode()),
            "/tokenize": lambda: self._json({"count": len(json.loads(request.body or b"{}")["prompt"]) // 3}),
            "/v1/chat/completions": lambda: self._chat(json.loads(request.body or b"{}")),
        }
        return handlers[request.path]()

    @staticmethod
    def _json(document: object) -> Answer:
        return Answer(200, json.dumps(document).encode())

    def _cards(self, serve: dict[str, Any]) -> list[dict[str, Any]]:
        names = self._engine.names if self._engine.names is not None else serve["served_names"]
        root = self._engine.root or serve["model_root"]
        return [{"id": name, "root": root, "max_model_len": serve["max_model_len"]} for name in names]

    def _metrics(self) -> str:
        lines = ["# HELP vllm:num_requests_running x"]
        lines += [f'vllm:num_requests_running{{engine="0"}} {self.requests_running}', "vllm:num_requests_waiting 0.0"]
        lines += [f'vllm:generation_tokens_total{{engine="0"}} {self.beat}']
        lines += [f'vllm:kv_cache_usage_perc{{engine="0"}} {self.kv_use}']
        if self._engine.drafts:
            lines += [f'vllm:spec_decode_num_{key}_total{{engine="0"}} {value}' for key, value in self.counters.items()]
        return "\n".join(lines)

    def _chat(self, asked: dict[str, Any]) -> Answer:
        engine = self._engine
        if engine.dies_on_chat:
            self._die()
            return Answer(None, error="ConnectionResetError: reset")
        if engine.chat:
            return engine.chat(asked)
        self.clock += engine.ticks_s
        self.beat += 64
        decayed = engine.decay_s is not None and self._age >= engine.decay_s
        self.counters["drafts"] += 10
        self.counters["draft_tokens"] += 100
        self.counters["accepted_tokens"] += 0 if decayed else 100 * engine.acceptance
        return self._json(answer_document())


def archive_of(path: Path, images: dict[str, dict[str, Any]], layers: Sequence[str] = ("layer",)) -> None:
    """What `docker save` writes of pretended images: their list, a configuration, and the layers that are there."""
    listed = [{"Config": "config", "RepoTags": list(images), "Layers": ["layer"]}]
    with tarfile.open(path, "w") as archive:
        for name, document in {"manifest.json": listed, "images.json": images, "config": {}}.items():
            content = json.dumps(document).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name in layers:
            archive.addfile(tarfile.TarInfo(name))


def answer_document(**changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": changes.get("content", "def f(): pass"), "reasoning": None}
    return {
        "choices": [{"message": message, "finish_reason": changes.get("finish_reason", "length")}],
        "usage": {"prompt_tokens": 49, "completion_tokens": changes.get("completion_tokens", 64)},
    }

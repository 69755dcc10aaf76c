"""A pretended node that lives on the walk's clock, with its own processes, and that watches what is done to it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparknode import cli
from sparknode.activate import worker
from sparknode.base.http import Answer, Request
from sparknode.base.paths import ACTIVATE_UNIT
from sparknode.base.process import Completed
from sparknode.errors import Stopped
from sparknode.state import journal, orders
from tests.unit.sparknode.world import TOTAL_KIB, Engine, World
from tests.walk.hub import Hub, Process

KILLED = "sparkfleet-serve.service: Main process exited, code=exited, status=137/n/a"
# Orders that change something: between them and around them is where a process can be cut off.
TOUCHING = {"start", "stop", "restart", "enable", "disable", "daemon-reload", "reset-failed"}


class Broken(AssertionError):
    """An invariant does not hold."""


class Machine(World):
    """One node of the walk."""

    def __init__(self, root: Path, name: str, hub: Hub) -> None:
        self._hub = hub
        self._free = -1
        self.name = name
        self.up = True
        self.worker: Process | None = None
        self._systemd: Process | None = None
        self.sessions: list[Process] = []
        # How often the walk did something to the node that no release can help.
        self.strikes = 0
        self.sound: dict[str, bool] = {}
        self.loaded_unit: str | None = None
        self.written = self.torn = 0
        self.points = 0
        self.strike_at: int | str | None = None
        self.strike: Callable[[], None] | None = None
        self.pool = True
        self._orphan = False
        self._lease_before: bytes | None = None
        super().__init__(root)
        self._data = str(self.paths.data)

    # Time is the walk's.

    @property
    def clock(self) -> float:
        return self._hub.now

    @clock.setter
    def clock(self, value: float) -> None:
        if self._hub.running is not None and value > self._hub.now:
            self._hub.sleep(value - self._hub.now)

    def sleep(self, seconds: float) -> None:
        self._hub.sleep(seconds)

    def elapse(self, seconds: float) -> None:
        self.requests_running = max(0.0, self.requests_running - self.drain_rate * seconds)
        if self.up:
            self._write_meminfo()
            self._maybe_die()

    def _write_meminfo(self) -> None:
        free = 5_000_000 if self.running or self._orphaned or not self._returned() else TOTAL_KIB - 6_000_000
        if free != self._free:
            self._free = free
            lines = {"MemTotal": TOTAL_KIB, "MemFree": free // 2, "MemAvailable": free, "SwapTotal": 0}
            self.paths.meminfo.write_text("".join(f"{key}: {value} kB\n" for key, value in lines.items()))

    def _returned(self) -> bool:
        return self.clock - self.stopped_at >= self.memory_return_s and not self.memory_never_returns

    @property
    def _orphaned(self) -> bool:
        return self._orphan

    def leave_orphan(self) -> None:
        """The engine's server dies and its core stays, with all of its memory."""
        if self.running:
            self._stop()
            self.failed = True
            self._orphan = True
            self.spawn_process(4242, "VLLM::EngineCore", "/system.slice/sparkfleet-serve.service")
            self._write_meminfo()

    def kill(self, pid: int) -> None:
        super().kill(pid)
        self._orphan, self.stopped_at = False, self.clock
        self._write_meminfo()

    # Processes.

    def sparknode(self, name: str, *argv: str) -> Process:
        """Run a command of the node program as a process of this node."""
        return self._hub.start(f"{self.name}: {name}", lambda: self.call(*argv), self._keep_lease)

    def call(self, *argv: str) -> int:
        """Run a command of the node program within the process that runs now; its exit code."""
        try:
            return cli.dispatch(self.host, OPTIONS.parse_args(list(argv)))
        except Stopped as problem:
            cli.say(str(problem))
            return problem.code

    def _keep_lease(self) -> None:
        """A killed process gives no lease back, although Python's clean-up of it just did."""
        if self._lease_before is not None:
            self.paths.lease.write_bytes(self._lease_before)

    def end(self, *processes: Process | None) -> None:
        """SIGKILL, from the walk itself."""
        for process in processes:
            if process and process.alive:
                self._lease_before = self.paths.lease.read_bytes() if self.paths.lease.exists() else None
                process.kill()

    @property
    def working(self) -> bool:
        """Is there a worker, or will there be one by itself?"""
        return any(process is not None and process.alive for process in (self.worker, self._systemd))

    def power_off(self) -> None:
        self.end(self.worker, self._systemd, *self.sessions)
        self.up = False
        self.sessions.clear()
        self.power_cut()
        for process in self.root.glob("proc/[0-9]*"):
            self.kill(int(process.name))
        self.requests_running = 0.0
        self.memory_never_returns = self.stop_hangs = self.docker_silent = self.stranger_on_port = False
        self._write_meminfo()

    def power_on(self) -> Process:
        """Boot: the activation's unit, then the serving unit once that is ready or has ended."""
        self.up = True
        self.loaded_unit = self.paths.unit.read_text() if self.paths.unit.exists() else None
        booted: list[bool] = []

        def boot() -> None:
            if not booted:
                booted.append(True)
                self.boot()

        def booting() -> None:
            if self.paths.order.exists():
                self._work(boot)
                while not booted and self.worker and self.worker.alive:
                    self._hub.sleep(0.5)
            boot()

        process = self._hub.start(f"{self.name}: boot", booting, self._keep_lease)
        self.sessions.append(process)
        return process

    def kill_engine(self) -> None:
        """The engine's process is killed from outside; systemd starts it again."""
        if self.running:
            self._stop()
            self.restarts += 1
            self._start()
            self.log = [KILLED]

    # Where something can be cut off.

    def point(self, state: str | None = None) -> None:
        """A moment at which the worker can be cut off: one of many, or right after a line of the journal."""
        if self._hub.running is not self.worker or threading.current_thread() is not threading.main_thread():
            return
        self.points += 1
        if self.strike is not None and self.strike_at in (self.points, state):
            strike, self.strike = self.strike, None
            self._hub.order(strike)

    # What is asked of it.

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        if argv[0] == "pool":
            self.pool = argv[1] == "in"
            return Completed(tuple(argv), 0)
        if argv[-1] == ACTIVATE_UNIT and argv[1] == "start":
            if not self.working and self.paths.order.exists():
                self._work()
                self.points = 0
            return Completed(tuple(argv), 0)
        touching = (argv[0] == "systemctl" and argv[1] in TOUCHING) or tuple(argv[:2]) == ("docker", "rm")
        if touching:
            self.point()
        if argv[0] == "systemctl" and argv[1] == "daemon-reload":
            self.loaded_unit = self.paths.unit.read_text()
        if argv[0] == "systemctl" and argv[1] == "start" and not self.running:
            self._require_memory()
        done = super().run(argv, timeout)
        if touching:
            self.point()
        self.commands.clear()
        return done

    def _work(self, ready: Callable[[], None] = lambda: None) -> None:
        """One start of the activation's unit."""

        def work() -> int:
            try:
                return worker.work(self.host, cli.say, ready)
            except Stopped as problem:
                cli.say(str(problem))
                self._start_again()
                return problem.code

        self.worker = self._hub.start(f"{self.name}: worker", work, self._keep_lease)

    def kill_worker(self) -> bool:
        """SIGKILL to the worker; whether systemd is to start it again, as its unit says."""
        self.end(self.worker)
        return self._start_again()

    def _start_again(self) -> bool:
        if UNIT.get("Restart") not in {"always", "on-failure", "on-abnormal", "on-abort"}:
            return False
        pause = float(UNIT.get("RestartSec", "0.1"))

        def again() -> None:
            self._hub.sleep(pause)
            if self.up and not (self.worker and self.worker.alive) and self.paths.order.exists():
                self._work()

        self._systemd = self._hub.start(f"{self.name}: systemd", again)
        return True

    def http(self, request: Request) -> Answer:
        self.requests.clear()
        return super().http(request)

    def _start(self) -> None:
        if self.running:
            raise Broken(f"{self.name}: a second engine was started beside {self.running}")
        current = self.linked("current")
        document = json.loads((self.paths.release_dir(current or "none") / "release.json").read_text())
        if self.loaded_unit != document["unit"]:
            raise Broken(f"{self.name}: systemd starts another unit than that of `current` ({current})")
        if self._orphaned:
            # The unit's own memory gate refuses.
            self.failed = True
            return
        super()._start()

    def _require_memory(self) -> None:
        if self._orphaned:
            raise Broken(f"{self.name}: an engine is started while one that was left behind still runs")
        order = orders.pending(self.paths)
        # On the way back the unit's own gate waits.
        if not self._returned() and order and order.release == self.linked("current"):
            raise Broken(f"{self.name}: an engine is started into memory that has not come back")

    @property
    def serves(self) -> bool:
        """Would a request be answered now?"""
        if not self.up or not self.running:
            return False
        engine = self.engines[self.running]
        return not engine.never_ready and self._age >= engine.load_s

    @property
    def ailing(self) -> bool:
        """Is there something that no release and no node program can help?"""
        faults = (self.stop_hangs, self.docker_silent, self.stranger_on_port, self.memory_never_returns)
        return not self.up or any(faults)

    def heal(self) -> None:
        self.stop_hangs = self.docker_silent = self.stranger_on_port = self.memory_never_returns = False
        self._write_meminfo()

    # What is known of it.

    def linked(self, name: str) -> str | None:
        """What a link names; asked after every turn, so without the ceremony of paths."""
        try:
            return os.readlink(f"{self._data}/{name}").rpartition("/")[2]  # noqa: PTH115
        except OSError:
            return None

    def records(self) -> list[dict[str, Any]]:
        return journal.read(self.paths)

    def lines(self) -> list[bytes]:
        return self.paths.journal.read_bytes().splitlines() if self.paths.journal.exists() else []

    def behave(self, release_id: str, engine: Engine, *, sound: bool) -> None:
        """From now on the engine of a release behaves like this."""
        self.engines[release_id] = engine
        self.sound[release_id] = sound


OPTIONS = cli.parser()
UNIT = dict(
    line.split("=", 1)
    for line in (Path(__file__).parents[2] / "templates/sparkfleet-activate.service").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)

"""Is the engine that was started still the same one, and if not: what did it die of?

A unit with `Restart=always` never reads «failed», and vLLM ends with exit code 0 when its engine core is killed. So
death is told by the restart counter, by the container's id, and by the unit being down.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparknode.base.paths import SERVE_UNIT
from sparknode.base.system import Host
from sparknode.engine import deaths
from sparknode.host import docker, units
from sparknode.state.release import Release

SETTLE_S = 10.0
# How long `docker run` may take to follow its container, and systemd to write how that ended.
EXIT_S, EXIT_POLL_S = 5.0, 0.1
# 64 open streams leave some 8,000 lines of echoes behind the cause.
DEATH_LINES = 50_000
SHOWN_LINES = 15
OOM_LINES = 500
# Who ends processes for want of memory: the kernel, earlyoom and systemd-oomd.
_KILLERS = ("_TRANSPORT=kernel", "+", "SYSLOG_IDENTIFIER=earlyoom", "+", "SYSLOG_IDENTIFIER=systemd-oomd")


@dataclass(frozen=True)
class Death:
    """Why an engine is gone; `from_outside` when a signal or a Docker daemon that died ended it."""

    reason: str
    memory: bool
    log: tuple[str, ...]
    from_outside: bool


class Watch:
    """Eyes on one start of the serving unit."""

    def __init__(self, host: Host, release: Release) -> None:
        self._host = host
        self._release = release
        self.started = host.system.monotonic()
        # By the log's own order: a clock that steps, or a part of a second, must not mix up two engines.
        self._since = f"--since=@{int(host.system.now())}"
        self._begin = units.log_end(host.system) or self._since
        # The id of our container, once it was seen running.
        self.container: str | None = None
        self._was_up = False
        before = units.serve_state(host.system)
        self._restarts = before.restarts if before else 0

    @property
    def age(self) -> float:
        return self._host.system.monotonic() - self.started

    def death(self) -> Death | None:
        """None while the engine lives or nobody can tell; a daemon that hiccups is no death."""
        reason = self._unit_death() or self._container_death()
        if reason is None:
            return None
        self._await_exit()
        log = self.last_log(DEATH_LINES)
        found = deaths.read_cause(log)
        shown = log[max(0, found.position + 1 - SHOWN_LINES) : found.position + 1]
        # A kill for want of memory is written down by whoever kills, and by the engine only as an exit code.
        killed = None if found.memory else self._killed_for_memory()
        text = killed or found.text
        return Death(
            f"{reason}: {text}" if text else reason, found.memory or killed is not None, shown, found.from_outside
        )

    def _await_exit(self) -> None:
        """Who ended an engine stands in the line that systemd writes for its exit: not there as soon as it is gone."""
        until = self._host.system.monotonic() + EXIT_S
        while self._unit_death() is None and self._host.system.monotonic() < until:
            self._host.system.sleep(EXIT_POLL_S)

    def _killed_for_memory(self) -> str | None:
        argv = ["journalctl", self._since, f"--lines={OOM_LINES}", "--output=cat", "--no-pager", *_KILLERS]
        done = self._host.system.run(argv, units.SHOW_S)
        return deaths.killed_for_memory(done.stdout.splitlines()) if done.ok else None

    def last_log(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """What the unit logged since this start."""
        return tuple(units.logs(self._host.system, SERVE_UNIT, self._begin, lines))

    def _unit_death(self) -> str | None:
        state = units.serve_state(self._host.system)
        if state is None:
            return None
        # A start by hand sets systemd's counter back.
        self._restarts = min(self._restarts, state.restarts)
        if state.active == "failed":
            return f"the unit failed ({state.result or 'no result'})"
        if state.sub == "auto-restart" or state.restarts > self._restarts:
            return "the engine died and systemd started it again"
        if state.active in {"active", "activating", "reloading"}:
            self._was_up = True
        elif state.active == "inactive" and not state.queued and (self._was_up or self.age > SETTLE_S):
            return "the engine ended and the unit is inactive"
        return None

    def _container_death(self) -> str | None:
        found = docker.container(self._host.system, self._release.container.name)
        if found.error:
            return None
        if found.found is None:
            return "the container is gone" if self.container else None
        if not docker.running(found):
            return "the container stopped" if self.container else None
        if self.container is None:
            self.container = found.text("Id")
        if found.text("Id") != self.container:
            return "the container was replaced by another one"
        return None

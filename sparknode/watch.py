"""Is the engine that was started still the same one, and if not: what did it die of?

A unit with `Restart=always` never reads «failed», and vLLM ends with exit code 0 when its engine core is killed. So
death is told by the restart counter, by the container's id, and by the unit being down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparknode import docker, memory, units
from sparknode.paths import SERVE_UNIT
from sparknode.release import Release
from sparknode.system import Host

SETTLE_S = 10.0
LOG_LINES = 200
SHOWN_LINES = 15
_MEMORY = re.compile(r"Free memory on device .* is less than desired|" + re.escape(memory.REFUSED))
_PREFIX = re.compile(r"^\([^()]*pid=\d+\)\s*|^(?:ERROR|CRITICAL)\s+\S+\s+\S+\s+\[[^\]]*\]\s*")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b")
# systemd on `docker run`: 137 and 143 are SIGKILL and SIGTERM to the container, 125 is a daemon that failed.
_KILLED = re.compile(r"Main process exited, code=(?:killed|exited, status=(?:125|137|143)\b)")
# These say only that something said above went wrong.
_SECOND_HAND = re.compile(r"Engine core initialization failed|See root cause above")


@dataclass(frozen=True)
class Death:
    """Why an engine is gone; `from_outside` when a signal or a Docker daemon that died ended it."""

    reason: str
    memory: bool
    log: tuple[str, ...]
    from_outside: bool


def cause(log: Sequence[str]) -> tuple[str | None, bool]:
    """The line of a log that says why, and whether it was for want of memory."""
    named: str | None = None
    for line in log:
        bare = line.strip()
        while (shorter := _PREFIX.sub("", bare)) != bare:
            bare = shorter
        if _MEMORY.search(bare):
            return bare[:400], True
        if (_EXCEPTION.match(bare) or bare.startswith("docker: ")) and not _SECOND_HAND.search(bare):
            named = bare
    return (named or (log[-1].strip() if log else None) or "")[:400] or None, False


class Watch:
    """Eyes on one start of the serving unit."""

    def __init__(self, host: Host, release: Release) -> None:
        self._host = host
        self._release = release
        self.started = host.system.monotonic()
        self._wall = host.system.now()
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
        log = self.last_log(LOG_LINES)
        said, for_memory = cause(log)
        outside = any(_KILLED.search(line) for line in log)
        return Death(f"{reason}: {said}" if said else reason, for_memory, log[-SHOWN_LINES:], outside)

    def last_log(self, lines: int = SHOWN_LINES) -> tuple[str, ...]:
        """What the unit logged since this start."""
        return tuple(units.logs_since(self._host.system, SERVE_UNIT, self._wall, lines))

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

"""One clock for a fleet in which many things happen at once, on one core and the same way for the same seed.

Each process of a walk is a greenlet: it runs until it waits, and the hub wakes whoever is due next. A process dies
where it waits, as with SIGKILL: what it has written stays, and nothing that it would have done on its way out is done.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]


class Gone(BaseException):
    """The process was killed at this moment; nothing may catch it."""


class Stuck(AssertionError):
    """Nobody has anything to wait for, or it takes longer than it may."""


class Process:
    """Something that runs on a node, or at an operator's desk."""

    def __init__(self, hub: Hub, name: str, work: Callable[[], Any], unwound: Callable[[], None]) -> None:
        self.name = name
        self.killed = False
        self.lines: list[str] = []
        self.result: Any = None
        self.fault: BaseException | None = None
        self._hub = hub
        self._unwound = unwound
        self._green = greenlet(lambda: self._run(work), hub.main)

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self.result = work()
        except Gone:
            self._unwound()
        except BaseException as fault:
            self.fault = fault

    @property
    def alive(self) -> bool:
        return not self._green.dead

    def resume(self) -> None:
        self._green.switch()
        if self.fault is not None:
            raise self.fault

    def kill(self) -> None:
        """End it where it waits. Called by the hub alone, never by a process."""
        if not self.alive:
            return
        self.killed = True
        # One that never ran has nothing to unwind, and hands what is thrown to whoever throws.
        with suppress(Gone):
            self._green.throw(Gone)


class Hub:
    """Who waits until when."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.now = 0.0
        self.main = getcurrent()
        self._advance = advance
        self._due: list[tuple[float, int, Process]] = []
        self._count = 0
        self._running: Process | None = None
        self._orders: list[Callable[[], None]] = []

    @property
    def running(self) -> Process | None:
        """The process that runs now; None when the walk itself does."""
        return self._running

    def start(self, name: str, work: Callable[[], Any], unwound: Callable[[], None] = lambda: None) -> Process:
        process = Process(self, name, work, unwound)
        self._wake(process, self.now)
        return process

    def sleep(self, seconds: float) -> None:
        """Called by a process."""
        assert self._running is not None, "only a process waits"
        self._wake(self._running, self.now + seconds)
        self.main.switch()

    def order(self, action: Callable[[], None]) -> None:
        """Have something done to the fleet at this very moment, before the process that runs now goes on."""
        assert self._running is not None
        self._orders.append(action)
        # Before everything else that is due now: the moment is inside what this process does.
        heapq.heappush(self._due, (self.now, -1, self._running))
        self.main.switch()

    def run_until(self, done: Callable[[], bool], longest_s: float, look: Callable[[], None]) -> None:
        """Let time pass until `done`; `look` is called whenever somebody stopped to wait."""
        until = self.now + longest_s
        while not done():
            while self._due and not self._due[0][2].alive:
                heapq.heappop(self._due)
            if not self._due:
                raise Stuck("everybody waits for somebody else")
            when, _, process = heapq.heappop(self._due)
            if when > until:
                raise Stuck(f"not done within {longest_s:.0f} s: {process.name} still waits")
            self._pass(when)
            self._running = process
            try:
                process.resume()
            finally:
                self._running = None
            while self._orders:
                self._orders.pop(0)()
            look()

    def idle(self, seconds: float, look: Callable[[], None]) -> None:
        """Let time pass; whoever is due meanwhile runs."""
        until = self.now + seconds
        sleeper = self.start("time", lambda: self.sleep(seconds))
        self.run_until(lambda: not sleeper.alive, seconds + 1.0, look)
        self._pass(until)

    def _wake(self, process: Process, when: float) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, process))

    def _pass(self, when: float) -> None:
        if when > self.now:
            self._advance(when - self.now)
            self.now = when

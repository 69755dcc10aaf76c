"""The edge of the program: everything that touches the machine goes through one small object."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sparknode import shell, wire
from sparknode.paths import Paths
from sparknode.shell import Completed


class System(Protocol):
    """What the commands need of a machine, and how this one does it; tests hand in one that only pretends."""

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        return shell.run(argv, timeout)

    def stream(self, argv: Sequence[str], timeout: float, on_line: Callable[[str], None]) -> Completed:
        return shell.stream(argv, timeout, on_line)

    def http(self, request: wire.Request) -> wire.Answer:
        return wire.send(request)

    def kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class RealSystem(System):
    """This machine."""


@dataclass(frozen=True)
class Host:
    """A node: where things stand on it, and the way to touch it."""

    paths: Paths
    system: System

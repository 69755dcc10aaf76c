"""The edge of the program: everything that touches the machine goes through one small object."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sparknode.base import dockerd, http, process
from sparknode.base.paths import Paths
from sparknode.base.process import Completed


class System(Protocol):
    """What the commands need of a machine, and how this one does it; tests hand in one that only pretends."""

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        return (dockerd.ask if argv[0] == dockerd.NAME else process.run)(argv, timeout)

    def stream(self, argv: Sequence[str], timeout: float, on_line: Callable[[str], None]) -> Completed:
        return process.stream(argv, timeout, on_line)

    def http(self, request: http.Request) -> http.Answer:
        return http.send(request)

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


# Who hears how the work goes.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Host:
    """A node: where things stand on it, and the way to touch it."""

    paths: Paths
    system: System


def ready() -> None:
    """Tell systemd that what waits for this service may start (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"READY=1", address.replace("@", "\0", 1))


def asking(
    system: System, questions: Mapping[str, Sequence[str]], timeout: float
) -> Callable[[], dict[str, Completed]]:
    """Ask all at once, so that a program that hangs costs one deadline and not one each; call for the answers."""
    # Threads by hand, because concurrent.futures brings logging with it: 8 ms.
    found: dict[str, Completed] = {}

    def ask(name: str, argv: Sequence[str]) -> None:
        found[name] = system.run(argv, timeout)

    threads = [threading.Thread(target=ask, args=pair) for pair in questions.items()]
    for thread in threads:
        thread.start()

    def answers() -> dict[str, Completed]:
        for thread in threads:
            thread.join()
        return {name: found[name] for name in questions}

    return answers

"""How far a long piece of work is: a line now and then for whoever watches, and a file for whoever asks."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any

from sparknode.base.files import atomic_write, read_object
from sparknode.base.system import Host, Tell

LINE_S = 5.0
FILE_S = 0.5


class Meter:
    """Counts bytes of one piece of work; safe for threads."""

    def __init__(self, host: Host, phase: str, total: int, tell: Tell, done: int = 0) -> None:
        self._host, self._tell, self._lock = host, tell, threading.Lock()
        self.phase, self.total, self.done, self._began_at = phase, total, done, done
        self.started = self._line = self._file = host.system.monotonic()

    def __enter__(self) -> Meter:
        self._tell(f"{self.phase} {self.total / 1e9:.2f} GB")
        self._write(self.started)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._host.paths.progress.unlink(missing_ok=True)
        if kind is None:
            self._tell(f"{self.text()}, done")

    def add(self, count: int) -> None:
        """So many bytes more; less than none where some have to come again."""
        with self._lock:
            self.done += count
            now = self._host.system.monotonic()
            if now - self._file >= FILE_S:
                self._write(now)
            if now - self._line >= LINE_S:
                self._line = now
                self._tell(self.text())

    def finish(self) -> None:
        """All is done, and whoever asks is told at once."""
        self.add(self.total - self.done)
        self._write(self._host.system.monotonic())

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return (self.done - self._began_at) / max(self._host.system.monotonic() - self.started, 1e-3)

    def text(self) -> str:
        left = (self.total - self.done) / self.rate if self.rate > 0 else 0.0
        ends = f", {left:.0f} s left" if left else ""
        return f"{self.phase} {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {self.rate / 1e6:.0f} MB/s{ends}"

    def _write(self, now: float) -> None:
        self._file = now
        document = {"phase": self.phase, "done": self.done, "total": self.total, "rate": self.rate}
        # Several may measure at once, and a full disk is no reason to stop the work itself.
        with suppress(OSError):
            atomic_write(self._host.paths.progress, json.dumps(document).encode())


def look(host: Host) -> dict[str, Any] | None:
    return read_object(host.paths.progress)

"""Locks that say who holds them and for what. The kernel holds one, so it is free the moment its holder dies."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sparknode.base.files import read_text
from sparknode.base.paths import Paths
from sparknode.errors import Busy

__all__ = ["Busy", "held", "hold", "hold_file", "holder"]

Held = AbstractContextManager[None]
_UNNAMED = "something that left no name"
# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"
_PAUSE_S = 0.1
# Whoever waits for models and images finds them there when another one has brought them: as long as a large pull.
STORE_S = 3600.0


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def hold(
    paths: Paths, purpose: str = _UNNAMED, wait_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> Held:
    """Hold the lock of whatever changes the serving unit, or raise Busy."""
    return hold_file(paths.lock, purpose, wait_s, sleep)


@contextmanager
def hold_file(
    path: Path, purpose: str, wait_s: float = 0.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock that a file stands for, or raise Busy with what its holder does once the wait is over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for left in reversed(range(1 + round(wait_s / _PAUSE_S))):
            try:
                fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
                break
            except OSError:
                if not left:
                    raise Busy(f"{holder(path) or _UNNAMED} is under way on this host; wait for its end") from None
            sleep(_PAUSE_S)
        # The name is for messages; a full disk must not keep anyone from the lock.
        with suppress(OSError):
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{purpose} (pid {os.getpid()}, since {since})".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(path: Path) -> str | None:
    """What the holder of a lock does, or None when it is free. Asking takes nothing from anybody."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return None
    finally:
        os.close(handle)
    if struct.unpack(_FLOCK, answer)[0] == fcntl.F_UNLCK:
        return None
    return (read_text(path) or "").strip() or _UNNAMED


def held(paths: Paths) -> bool:
    return holder(paths.lock) is not None

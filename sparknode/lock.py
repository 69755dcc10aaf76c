"""One activation at a time. The kernel holds the lock, so it is free the moment its holder dies."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sparknode.paths import Paths

# struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"


class Busy(Exception):
    """Another process holds the lock."""


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)


def hold(paths: Paths) -> AbstractContextManager[None]:
    """Hold the lock of activations or raise Busy at once."""
    return hold_file(paths.lock)


@contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """Hold the lock that a file stands for, or raise Busy at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
        except OSError as problem:
            raise Busy from problem
        yield
    finally:
        os.close(handle)


def held(paths: Paths) -> bool:
    """Does anyone hold the lock? Asking takes nothing, so that a probe never stands in a worker's way."""
    try:
        handle = os.open(paths.lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_RDLCK))
    except OSError:
        return False
    finally:
        os.close(handle)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

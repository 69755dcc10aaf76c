"""Running foreign programs. Nothing here raises: a missing program, a timeout and a crash are all answers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

NOT_FOUND = 127
_UNSTARTED = "not started: "
# A process that hangs in the kernel (a wedged GPU driver) outlives SIGKILL: after this long it is left behind.
REAP_S = 1.0
KEPT_LINES = 40


@dataclass(frozen=True)
class Completed:
    """What a program answered; `rc` is None when it had to be ended at its timeout."""

    argv: tuple[str, ...]
    rc: int | None
    stdout: str = ""
    stderr: str = ""
    timeout: float = 0.0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.rc == 0

    @property
    def timed_out(self) -> bool:
        return self.rc is None

    @property
    def missing(self) -> bool:
        return self.rc == NOT_FOUND

    @property
    def unstarted(self) -> bool:
        """There was no such program, or it may not be run: not to be taken for one that ends with 127 itself."""
        return self.missing and self.stderr.startswith(_UNSTARTED)

    @property
    def why(self) -> str:
        """One line that says how it went wrong."""
        name = " ".join(self.argv[:3])
        if self.missing:
            return f"`{self.argv[0]}` is not installed here, or may not be run"
        if self.timed_out:
            return f"`{name}` did not answer within {self.timeout:.0f} s"
        said = (self.stderr.strip() or self.stdout.strip() or "it printed nothing").splitlines()[-1]
        return f"`{name}` ended with {self.rc}: {said[:400]}"


def environment() -> dict[str, str]:
    # The parsers read English, and an unprivileged login may have no sbin folders in its PATH.
    path = os.environ.get("PATH", "")
    # That this service is ready is not for its children to say: systemctl itself reports there (sd_notify(3)).
    return {
        **{key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
        "LC_ALL": "C.UTF-8",
        "PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin",
    }


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _start(command: Sequence[str], errors: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        errors="replace",
        env=environment(),
        start_new_session=True,
    )


def run(argv: Sequence[str], timeout: float) -> Completed:
    """Run a program to its end or to its timeout, with its output as text."""
    command, started = tuple(argv), time.monotonic()
    try:
        process = _start(command, subprocess.PIPE)
    except OSError as problem:
        return Completed(command, NOT_FOUND, "", f"{_UNSTARTED}{problem}", timeout)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=REAP_S)
        return Completed(command, None, timeout=timeout, seconds=time.monotonic() - started)
    return Completed(command, process.returncode, out, err, timeout, time.monotonic() - started)


def stream(argv: Sequence[str], timeout: float, on_line: Callable[[str], None]) -> Completed:
    """Run a program and hand over its output line by line; the last lines come back as stdout."""
    command = tuple(argv)
    try:
        process = _start(command, subprocess.STDOUT)
    except OSError as problem:
        return Completed(command, NOT_FOUND, "", f"{_UNSTARTED}{problem}", timeout)
    expired = threading.Event()
    started = time.monotonic()

    def expire() -> None:
        expired.set()
        _end(process)

    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            kept.append(line.rstrip("\n"))
            on_line(line.rstrip("\n"))
        rc = process.wait(max(REAP_S, timeout - (time.monotonic() - started)))
    except subprocess.TimeoutExpired:
        return Completed(command, None, "\n".join(kept), timeout=timeout)
    finally:
        timer.cancel()
        if process.poll() is None:
            _end(process)
    return Completed(command, None if expired.is_set() else rc, "\n".join(kept), timeout=timeout)

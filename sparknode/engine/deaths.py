"""What an engine died of, read out of its log.

The log of a loaded engine ends with one traceback for each open stream, thousands of lines that all repeat that the
core is gone (vLLM 0.26.0: 3,973 lines with 32 streams). The cause stands above them, if it was logged at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparknode.host import memory

_PROCESS = re.compile(r"^\(([A-Za-z_]+)[^()]*pid=\d+\)\s?")
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b:?\s+(?:\S+\s+\S+\s+\[[^\]]*\]\s*)?")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b")
# What is no Python exception: Docker refuses, or C++ ends the process.
_OTHERS = re.compile(r"^docker: |^terminate called after throwing|^Fatal Python error: ")
# These repeat that something above went wrong.
_ECHO = re.compile(r"Engine core initialization failed|See root cause above|EngineDeadError|See stack trace \(above\)")
# From the first of these on the API server only reports to its clients that the core is gone.
_CORE_GONE = re.compile(
    r"engine core exited unexpectedly|EngineCore encountered a fatal error|EngineCore failed to start"
    r"|AsyncLLM output_handler failed|Engine core initialization failed"
)
_API_SERVER = "APIServer"
# Memory that was asked for and not there. «No available memory for the cache blocks» and «larger than the available KV
# cache memory» are none of it: they are the release's own settings, which fail alike with all memory free.
_MEMORY = re.compile(
    r"Free memory on device .* is less than desired|OutOfMemoryError\b|CUDA out of memory|CUDA error: out of memory"
    r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|NV_ERR_NO_MEMORY|std::bad_alloc|^MemoryError\b"
    r"|\[Errno 12\] Cannot allocate memory|can't allocate memory|" + re.escape(memory.REFUSED)
)
# The kernel and earlyoom name the process that they end; systemd names the unit or the container's scope.
_OOM_KILL = re.compile(
    r"[Oo]ut of memory: Killed process \d+ \((?P<kernel>[^)]*)\)"
    r"|sending SIG(?:TERM|KILL) to process \d+(?: uid \d+)? \"(?P<earlyoom>[^\"]*)\""
    r"|Killed \S*docker-\S* due to memory|has been killed by the OOM killer|result 'oom-kill'"
)
_ENGINE_PROCESS = re.compile(r"vllm|enginecore|python|pt_main|^ray::", re.IGNORECASE)
# systemd on `docker run`: 137 and 143 are SIGKILL and SIGTERM to the container, 125 is a daemon that failed. vLLM
# itself ends with 0 or 1 when it is told to stop, and reports that in its own words.
_FROM_OUTSIDE = re.compile(
    r"Main process exited, code=(?:killed|exited, status=(?:125|137|143)\b)"
    r"|^KeyboardInterrupt: terminated|\[shutdown\] API server: shutdown triggered"
    r"|\[shutdown\] EngineCore: trigger received signal=SIG"
)
CORE_VANISHED = "the engine core exited unexpectedly"
_LONGEST = 400


@dataclass(frozen=True)
class Line:
    """One line without what the logger put before it; `first_hand` marks what may be a cause."""

    text: str
    process: str | None
    level: str | None

    @property
    def first_hand(self) -> bool:
        return self.level not in {"DEBUG", "INFO", "WARNING"} and not _ECHO.search(self.text)


def _read(raw: str) -> Line:
    text, process, level = raw.strip(), None, None
    # Some lines carry the process twice: the parent repeats what its child printed.
    while (found := _PROCESS.match(text)) is not None:
        text, process = text[found.end() :].lstrip(), found[1]
    if (found := _LEVEL.match(text)) is not None:
        text, level = text[found.end() :], found[1]
    return Line(text.strip(), process, level)


def killed_for_memory(lines: Sequence[str]) -> str | None:
    """The line with which the kernel, earlyoom or systemd ended a process of an engine for want of memory."""
    for raw in lines:
        found = _OOM_KILL.search(raw)
        name = (found["kernel"] or found["earlyoom"]) if found else None
        if found and (name is None or _ENGINE_PROCESS.search(name)):
            return raw.strip()[:_LONGEST]
    return None


@dataclass(frozen=True)
class Cause:
    """Why a log ends: the line that names the cause, whether it was want of memory, and where the line stands."""

    text: str | None
    memory: bool
    from_outside: bool
    position: int


def read_cause(log: Sequence[str]) -> Cause:
    """The cause that a log names, however much was logged after it."""
    lines = [_read(raw) for raw in log]
    gone = next((at for at, line in enumerate(lines) if _CORE_GONE.search(line.text)), None)
    outside = next((at for at, line in enumerate(lines) if _FROM_OUTSIDE.search(line.text)), None)
    # Who stops a dead engine did not kill it.
    from_outside = outside is not None and (gone is None or outside < gone)
    named: int | None = None
    for at, line in enumerate(lines):
        # What the API server raises doesn't end the core, neither a client's bad request before nor the echoes after.
        if not line.first_hand or (gone is not None and line.process == _API_SERVER):
            continue
        if _MEMORY.search(line.text):
            return Cause(line.text[:_LONGEST], True, False, at)
        if _EXCEPTION.match(line.text) or _OTHERS.match(line.text):
            named = at
    killed = killed_for_memory(log)
    if killed:
        return Cause(killed, True, False, gone if gone is not None else len(log) - 1)
    if named is not None:
        return Cause(lines[named].text[:_LONGEST], False, from_outside, named)
    if gone is not None:
        return Cause(CORE_VANISHED, False, from_outside, gone)
    last = log[-1].strip()[:_LONGEST] if log else None
    return Cause(last or None, False, from_outside, len(log) - 1)


def cause(log: Sequence[str]) -> tuple[str | None, bool]:
    """The line of a log that names the cause, and whether it was want of memory."""
    found = read_cause(log)
    return found.text, found.memory

"""What the Hub stand-in does wrong, and how much it has sent: both through files beside its log."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.lab.config import LAB_DIR, LabError

KINDS = ("truncate", "flip", "status", "hang", "slow")


@dataclass(frozen=True)
class Fault:
    """``kind`` at every request whose path matches, ``times`` times (0: always)."""

    kind: str
    match: str = "*"
    times: int = 0
    status: int = 429
    retry_after_s: int = 1
    seconds: float = 3600.0
    bytes_per_second: float = 1e6

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LabError(f"the Hub stand-in knows no fault {self.kind!r}; there are {', '.join(KINDS)}")


class Faults:
    """The server's view: read again whenever the file changes, with its own count of what was done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read: tuple[int, list[Fault]] = (-1, [])
        self._done: Counter[int] = Counter()

    def take(self, path: str) -> Fault | None:
        with self._lock:
            for number, fault in enumerate(self._current()):
                if fnmatch(path, fault.match) and (not fault.times or self._done[number] < fault.times):
                    # A body can only be spoilt where there is one: the redirect and the listing pass.
                    spoils_body = fault.kind in ("truncate", "flip", "slow")
                    if spoils_body and path.startswith("/api/"):
                        continue
                    if spoils_body and path.endswith((".safetensors", ".png")) and "/resolve/" in path:
                        continue
                    self._done[number] += 1
                    return fault
        return None

    def _current(self) -> list[Fault]:
        try:
            stamp = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            stamp = 0
        if stamp != self._read[0]:
            listed = json.loads(self._path.read_text(encoding="utf-8")) if stamp else []
            self._read = (stamp, [Fault(**entry) for entry in listed])
            self._done.clear()
        return self._read[1]


def set_faults(*faults: Fault, folder: Path = LAB_DIR) -> None:
    """Replace the faults; with none, the stand-in behaves."""
    path = folder / "hub-faults.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([asdict(fault) for fault in faults], indent=2), encoding="utf-8")
    temporary.replace(path)


def bytes_served(client: str | None = None, match: str = "*", folder: Path = LAB_DIR) -> int:
    """How many bytes of bodies the stand-in has sent, to one client or to all."""
    path = folder / "hub-access.jsonl"
    if not path.exists():
        return 0
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(
        entry["bytes"]
        for entry in entries
        if (client is None or entry["client"] == client) and fnmatch(entry["path"], match)
    )

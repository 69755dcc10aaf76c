"""Killing one process of a host from outside, by its control group and pid, and reading what a host wrote at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import faults
from tests.lab.cases.reading import whole_records
from tests.lab.cgroups import PARENT
from tests.lab.config import HOSTS_DIR


@dataclass(frozen=True)
class Watched:
    """A host as this machine sees it: its disk is a folder, its processes are processes."""

    name: str

    @property
    def state(self) -> Path:
        return HOSTS_DIR / self.name / "data" / "sparkfleet"

    def is_at_rest(self) -> bool:
        """Has the last activation ended? Its order goes at the very end, also where no journal could be written."""
        return not (self.state / "order.json").exists()

    def torn_lines(self) -> int:
        """How many lines do not parse. A power cut or a full disk may tear one, and the next writer ends it."""
        lines = (self.state / "journal.jsonl").read_bytes().splitlines()
        return len(lines) - len(whole_records(lines))

    def link(self, name: str) -> str | None:
        try:
            return (self.state / name).readlink().name
        except OSError:
            return None

    def processes(self, group: str) -> Iterator[tuple[int, str]]:
        """The pids and command lines in a control group of this host."""
        mine = f"/{PARENT}/{self.name}/"
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                groups = (folder / "cgroup").read_text()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mine in groups and group in groups:
                yield int(folder.name), command


class Tail:
    """What activations of one release write from now on; asked every few milliseconds, so nothing is read twice."""

    def __init__(self, host: Watched, release: str) -> None:
        self._path = host.state / "journal.jsonl"
        self._release = release
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self.records: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        # The last line may be in the middle of being written.
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for record in whole_records(data[:whole].splitlines()):
            if record.get("release") == self._release and record.get("activation"):
                self.records.append(record)
        return self.records


def strike(host: Watched, victim: str) -> bool:
    """Kill a victim on the host; False when there was none at this moment."""
    if victim == "host":
        faults.power_cut(host.name, boot=False)
        return True
    if victim == "disk":
        faults.fill_disk(host.name)
        return True
    number = signal.SIGTERM if victim == "worker asked" else signal.SIGKILL
    group, word = {
        "worker": ("sparkfleet-activate.service", "sparknode"),
        "worker asked": ("sparkfleet-activate.service", "sparknode"),
        "dockerd": ("docker.service", "dockerd"),
        "engine": ("docker", "vllm serve"),
    }[victim]
    found = [
        pid
        for pid, command in host.processes(group)
        # What waits for the container in the foreground has the engine's command line too.
        if word in command and "docker run" not in command and "docker-proxy" not in command
    ]
    for pid in found:
        # A process between fork and exec has its parent's command line, and may have ended before its turn comes.
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return bool(found)

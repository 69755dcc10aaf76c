"""What happened on this node, one fsynced JSON line a step.

A line is written before its step, so the last line always names the step in which something was cut off.
The reader takes what it can: a torn or garbled line is left out, whatever it holds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sparknode import NOT_JUDGED
from sparknode.base import locks
from sparknode.base.files import atomic_write, sync_directory
from sparknode.base.paths import Paths

LEASED, DRAINING, STOPPING, RECLAIMING = "leased", "draining", "stopping", "reclaiming"
SWITCHING, STARTING, PROBING, SOAKING = "switching", "starting", "probing", "soaking"
COMMITTED, REVERTING, REVERTED, FAILED = "committed", "reverting", "reverted", "failed"


@dataclass(frozen=True)
class State:
    """A state of an activation: what it means, which release `current` names then (`either` while it is changing), what
    follows where its worker or its host dies there, and in which state that ends when a verified release is there.
    """

    name: str
    meaning: str
    current: str
    cut_off: str
    ends: str


_LEFT = "a running engine is left alone; if none runs, after a boot, the verified release is started and checked"
_BACK = "the verified release is put back, started and checked"
TABLE = (
    State(LEASED, "the order is written; the release and the one to roll back to are complete", "old", _LEFT, REVERTED),
    State(
        DRAINING,
        "no other program owns the port; the rotation hook takes the host out; requests under way end",
        "old",
        _LEFT,
        REVERTED,
    ),
    State(STOPPING, "the engine stops, then leftover processes of its container are killed", "old", _BACK, REVERTED),
    State(
        RECLAIMING, "the activation waits for memory: a stopped container has not freed it yet", "old", _BACK, REVERTED
    ),
    State(SWITCHING, "the `current` link is pointed at the release, and with it the unit", "either", _BACK, REVERTED),
    State(STARTING, "the engine loads; the line names its phase", "new", _BACK, REVERTED),
    State(PROBING, "every gate once", "new", _BACK, REVERTED),
    State(SOAKING, "every gate again, each `soak_interval_s`", "new", _BACK, REVERTED),
    State(
        COMMITTED,
        "the host's state was compared with the release once more; `verified` and `previous` follow this line",
        "new",
        "the links follow, and the host returns to its rotation once the engine answers",
        COMMITTED,
    ),
    State(REVERTING, "the verified release takes the same steps, with the same gates", "either", _BACK, REVERTED),
    State(REVERTED, "the verified release serves and passed its gates", "old", "as after `committed`", REVERTED),
    State(
        FAILED,
        "there was no release to roll back to, or that failed too",
        "either",
        "nothing: the line states what serves",
        FAILED,
    ),
)
STATES = tuple(state.name for state in TABLE)
# What serves then was proven.
PROVEN = frozenset({COMMITTED, REVERTED})
TERMINAL = PROVEN | {FAILED}
# Until here the engine of the release before is as it was.
UNTOUCHED = frozenset({LEASED, DRAINING})

# One activation writes some 20 kB, and what a reader wants lies within the last hundred.
TAIL_BYTES = 2 << 20
# A tenth of a second to parse; four months of a watch that notes as much as it may.
ROTATE_BYTES = 4 << 20
# A history shows twenty, and the first one read may lack its beginning.
ENOUGH = 20

Record = dict[str, Any]


def timestamp(seconds: float) -> str:
    """UTC with milliseconds."""
    millis = round(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000)) + f".{millis % 1000:03d}Z"


def seconds_of(text: object) -> float | None:
    """The time of a record in seconds since 1970, or None when it is no time."""
    try:
        return datetime.fromisoformat(str(text).removesuffix("Z") + "+00:00").timestamp()
    except (ValueError, OverflowError):
        return None


def parse_lines(data: bytes) -> list[Record]:
    """Every line that is a whole record."""
    records = []
    for line in data.split(b"\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("state") in STATES and isinstance(value.get("activation"), str):
            records.append(value)
    return records


def tail_offset(paths: Paths, tail: int = TAIL_BYTES) -> int:
    """Where to begin reading for the last activations."""
    try:
        return max(0, paths.journal.stat().st_size - tail)
    except FileNotFoundError:
        return 0


def read_from(paths: Paths, offset: int) -> tuple[list[Record], int]:
    """The records after an offset, oldest first, and the offset after the last whole line."""
    try:
        with paths.journal.open("rb") as stream:
            if offset > os.fstat(stream.fileno()).st_size:
                # It was put aside meanwhile.
                offset = 0
            stream.seek(offset)
            data = stream.read()
    except FileNotFoundError:
        return [], offset
    whole = data.rfind(b"\n") + 1
    return parse_lines(data[:whole]), offset + whole


def read(paths: Paths) -> list[Record]:
    """The records of the last activations, oldest first; a journal that does not exist has none.

    Lines of the watch and of leases stand between them, so the tail that is read grows until it holds enough.
    """
    tail = TAIL_BYTES
    while True:
        offset = tail_offset(paths, tail)
        records = read_from(paths, offset)[0]
        if not offset or len(attempts(records)) > ENOUGH:
            return records
        tail *= 4


def rotate(paths: Paths) -> None:
    """Put a large journal aside and go on with the records of its last activations; a full disk puts it off.

    Only for whoever holds the lock: no activation writes meanwhile.
    """
    with suppress(OSError):
        if paths.journal.stat().st_size <= ROTATE_BYTES:
            return
        kept = [record for found in attempts(read(paths))[-ENOUGH - 1 :] for record in found.records]
        new = paths.journal.with_suffix(".new")
        atomic_write(new, b"".join(map(_line, kept)))
        paths.former_journal.unlink(missing_ok=True)
        paths.former_journal.hardlink_to(paths.journal)
        new.replace(paths.journal)
        sync_directory(paths.data)


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def append(paths: Paths, record: Record) -> None:
    """Add one record and make it durable before anything else happens."""
    line = _line(record)
    new = not paths.journal.exists()
    paths.journal.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(paths.journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        # A power cut can leave half a line; without a line end of its own it would swallow this record too.
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = b"\n" + line
        while line:
            line = line[os.write(handle, line) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        sync_directory(paths.journal.parent)


def event(paths: Paths, now: float, state: str, **fields: object) -> None:
    """A line that belongs to no activation: a lease that was taken over, what the watch did."""
    append(paths, {"t": timestamp(now), "activation": None, "state": state, "release": None, **fields})
    if paths.journal.stat().st_size > ROTATE_BYTES:
        with suppress(locks.Busy), locks.hold(paths, "putting the journal aside"):
            rotate(paths)


# Which of two figures of a speed is the better one, by unit.
_BETTER: dict[str, Callable[[float, float], float]] = {"tok/s": max, "s": min}


@dataclass(frozen=True)
class Way:
    """The records of one release within an activation: the new one's, or those of the way back."""

    records: list[Record]

    @property
    def load_s(self) -> float | None:
        times = [record["load_s"] for record in self.records if "load_s" in record]
        return times[-1] if times else None

    @property
    def figures(self) -> dict[str, Any]:
        """The last figure of each gate, and of a speed the best; one that could not be judged takes no judged one's
        place.

        What else a host does only ever slows a measurement down, so that the best of several says most of the release
        (docs.python.org, `timeit`, says the same of its own). A release that is slower is so in each round.
        """
        found: dict[str, Any] = {}
        for record in self.records:
            gate = record.get("gate")
            if not isinstance(gate, dict) or "name" not in gate:
                continue
            known = found.get(str(gate["name"]))
            if known is None or _says_more(gate, known):
                found[str(gate["name"])] = {key: value for key, value in gate.items() if key != "name"}
        return found


def _says_more(new: Record, known: Record) -> bool:
    """Whether a later record of a gate takes the place of an earlier one."""
    judged = [gate.get("verdict") != NOT_JUDGED for gate in (new, known)]
    if judged[0] != judged[1]:
        return judged[0]
    better = _BETTER.get(str(new.get("unit")))
    now, before = new.get("figure"), known.get("figure")
    if better is None or not isinstance(now, (int, float)) or not isinstance(before, (int, float)):
        return True
    return better(now, before) == now


@dataclass(frozen=True)
class Attempt:
    """The records of one activation, oldest first."""

    records: list[Record] = field(default_factory=list)

    @property
    def last(self) -> Record:
        """The last record; of those that ended it the first, as what follows that are notes."""
        last = self.records[-1]
        for record in reversed(self.records):
            if record["state"] != self.records[-1]["state"] or last["state"] not in TERMINAL:
                break
            last = record
        return last

    @property
    def activation(self) -> str:
        return str(self.last["activation"])

    @property
    def release(self) -> str:
        return str(self.last.get("release"))

    @property
    def state(self) -> str:
        return str(self.last["state"])

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def since(self) -> str:
        return str(self.records[0].get("t"))

    @property
    def phases(self) -> list[dict[str, Any]]:
        """When each state was entered, in order; the last one is when it ended."""
        found: list[dict[str, Any]] = []
        for record in self.records:
            if not found or found[-1]["state"] != record["state"]:
                found.append({"state": record["state"], "t": record.get("t")})
        return found

    @property
    def seconds(self) -> float | None:
        first, last = seconds_of(self.records[0].get("t")), seconds_of(self.last.get("t"))
        return None if first is None or last is None else round(max(0.0, last - first), 1)

    @property
    def forth(self) -> Way:
        """What the release itself did."""
        return Way([record for record in self.records if record["state"] != REVERTING])

    @property
    def back(self) -> Way:
        """What the old release did when it was brought back."""
        return Way([record for record in self.records if record["state"] == REVERTING])

    def proof_of(self, release: str) -> Way | None:
        """The part of this activation that proved the release, if it did."""
        if self.state == COMMITTED and self.release == release:
            return self.forth
        if self.state == REVERTED and self.last.get("from") == release and self.back.figures:
            return self.back
        return None


def attempts(records: Iterable[Record]) -> list[Attempt]:
    found: dict[str, Attempt] = {}
    for record in records:
        found.setdefault(record["activation"], Attempt()).records.append(record)
    return list(found.values())


def last_attempt(records: Iterable[Record]) -> Attempt | None:
    found = attempts(records)
    return found[-1] if found else None


def attempt(records: Iterable[Record], activation: str) -> Attempt | None:
    """The records of one activation, if it wrote any."""
    found = [record for record in records if record["activation"] == activation]
    return Attempt(found) if found else None


def known_bad(records: Iterable[Record]) -> dict[str, Record]:
    """The releases that failed a gate of their own here and were not proven since, with what failed."""
    bad: dict[str, Record] = {}
    for record in records:
        release = str(record.get("release"))
        if "blame" in record:
            bad[release] = {"gate": record["blame"], "error": record.get("error"), "t": record.get("t")}
        elif record["state"] == COMMITTED or (record["state"] == REVERTED and record.get("from") == release):
            bad.pop(release, None)
    return bad


def loads(records: Iterable[Record], key: str) -> list[float]:
    """How long engines of an image with the same weights (`Release.load_key`) took to load here, oldest first."""
    found = [record.get("load_s") for record in records if record.get("loaded") == key]
    return [float(seconds) for seconds in found if isinstance(seconds, (int, float))]


def last_ended(records: Iterable[Record]) -> Attempt | None:
    ended = [attempt for attempt in attempts(records) if attempt.ended]
    return ended[-1] if ended else None


def proof_of(records: Iterable[Record], release: str) -> Way | None:
    """What proved this release here last."""
    ways = (attempt.proof_of(release) for attempt in reversed(attempts(records)))
    return next((way for way in ways if way), None)

"""The points of the matrix: which line of which activation, and who dies there."""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FORWARD = ("leased", "draining", "stopping", "reclaiming", "switching", "starting", "probing", "soaking")
# On the way back the state stays `reverting`, and the step stands in the line's note.
BACK = ("reverting", *(f"reverting {step}" for step in ("stopping", "switching", "starting", "proving")))
LINES = {"upgrade": (*FORWARD, "committed"), "revert": (*FORWARD[:-1], *BACK, "reverted")}
# What happens: a process is killed, the worker is told to end, the host loses its power, Docker is stopped by hand (and
# started again a little later), or the disk fills up (and is cleared once the activation has ended).
EVENTS = {
    "controller": "controller dies",
    "worker": "worker dies",
    "worker asked": "worker gets SIGTERM",
    "dockerd": "dockerd dies",
    "docker": "docker is stopped",
    "engine": "engine dies",
    "host": "host dies",
    "disk": "disk is full",
}
VICTIMS = tuple(EVENTS)
# Right after a line its step has not begun; a moment later it is under way, or the next line is about to be written.
MOMENTS = {"at the line": 0.0, "within the step": 0.3}


@dataclass(frozen=True)
class Point:
    """One cell of the matrix."""

    way: str
    line: str
    victim: str
    moment: str

    def __str__(self) -> str:
        return f"{self.way}, {self.line}, {EVENTS[self.victim]} {self.moment}"


def every_point() -> list[Point]:
    return [
        Point(way, line, victim, moment)
        for way, lines in LINES.items()
        for line in lines
        for victim in VICTIMS
        for moment in MOMENTS
    ]


def drawn_seed() -> int:
    """The seed that was asked for, or another one each run, which all workers of the run share."""
    asked = os.environ.get("SPARKFLEET_CRASH_SEED")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(time.time_ns())
    return int(asked) if asked else zlib.crc32(run.encode())


def sample(seed: int, count: int) -> list[Point]:
    """Some points, each victim as often as the others, in an order of the seed's."""
    chance = random.Random(seed)
    left = {victim: [point for point in every_point() if point.victim == victim] for victim in VICTIMS}
    for points in left.values():
        chance.shuffle(points)
    return [left[VICTIMS[at % len(VICTIMS)]].pop() for at in range(min(count, len(every_point())))]


def chosen(asked: str, seed: int) -> list[Point]:
    """`all` points, a part of them (`40:80`, as a slice), or so many of the seed's."""
    if asked == "all":
        return every_point()
    first, part, last = asked.partition(":")
    return every_point()[int(first) : int(last or len(every_point()))] if part else sample(seed, int(asked))


def line_of(record: dict[str, Any]) -> str:
    """What a record of the journal is called here."""
    state = str(record["state"])
    if state != "reverting":
        return state
    if "gate" in record:
        return "reverting proving" if record["gate"]["name"] != "ready" else "reverting starting"
    step = str(record.get("note", "")).partition(":")[0]
    return f"reverting {step}" if f"reverting {step}" in BACK else "reverting"


def has_come(point: Point, records: Iterable[dict[str, Any]]) -> bool:
    return any(line_of(record) == point.line for record in records)

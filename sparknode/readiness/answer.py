"""What the node's state means for whoever sends requests: ready, draining, or not serving.

200, 404 and 503 are what HAProxy's `http-check disable-on-404` reads as up, draining and down, and what every other
balancer reads as up and down.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparknode.state import journal

READY, DRAINING, NOT_SERVING = 200, 404, 503
WORDS = {READY: "ready", DRAINING: "draining", NOT_SERVING: "not serving"}
# In these the engine finishes what it has taken, and gets nothing new.
_FINISHING = frozenset({journal.DRAINING, journal.STOPPING})
# What the watchdog finds of an engine that makes no token.
HUNG = ("stalled", "silent", "unanswered")


@dataclass(frozen=True)
class Standing:
    """What there is to decide from; None is what could not be told or is not there."""

    # The release that a start brings, and the one that passed every gate last.
    current: str | None
    verified: str | None
    # The state of the newest activation.
    activation: str | None
    out_of_rotation: bool
    # What systemd calls the serving unit's state.
    unit: str | None
    # What the watchdog found of an engine that makes no token.
    hung: str | None
    # Whether the engine's `/health` is 200.
    healthy: bool


@dataclass(frozen=True)
class Answer:
    """`status` is the HTTP status."""

    status: int
    why: str

    @property
    def text(self) -> str:
        return f"{WORDS[self.status]}: {self.why}"


def is_ours(status: int | None, body: bytes) -> bool:
    """Is this such an answer, and not that of another program on the port?"""
    return status in WORDS and body.startswith(f"{WORDS[status]}: ".encode())


def decide(standing: Standing) -> Answer:
    """Whether requests may come; what cannot be told is no."""
    step = standing.activation if standing.activation not in journal.PROVEN else None
    if standing.current is None:
        return Answer(NOT_SERVING, "no release is current here")
    if step in _FINISHING or standing.unit == "deactivating":
        return Answer(DRAINING, f"an activation is {step}" if step else "the engine is being stopped")
    if step == journal.FAILED:
        return Answer(NOT_SERVING, "the last activation failed")
    if step is not None and step not in journal.UNTOUCHED:
        return Answer(NOT_SERVING, f"an activation is {step}")
    if standing.unit != "active":
        return Answer(NOT_SERVING, f"the serving unit is {standing.unit or 'unknown'}")
    if standing.current != standing.verified:
        return Answer(NOT_SERVING, f"release {standing.current} has not passed its gates here")
    if standing.hung:
        return Answer(NOT_SERVING, f"the watchdog reports: {standing.hung}")
    if not standing.healthy:
        return Answer(NOT_SERVING, "the engine does not answer /health with 200")
    if standing.out_of_rotation:
        return Answer(DRAINING, "this host is out of rotation")
    return Answer(READY, f"release {standing.current} is verified")

"""What the program on a node prints, as fewer lines for whoever watches. Pure.

One line for each phase of a host, with the gates that pass folded into it. Only what is known to be progress is left
out: a failure, a warning, a remedy and whatever a newer program prints are passed on whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sparknode import NOT_JUDGED
from sparknode.state.journal import COMMITTED, FAILED, REVERTED, REVERTING, STARTING, STATES

# A phase that takes longer than this prints how far it is, and again after as long.
SIGN_S = 60.0
# Where a line is printed: a step of its way only where every line is one, an end also above a terminal's live view, an
# alarm also in quiet mode.
Rank = Literal["step", "end", "alarm"]

_STATE = re.compile(rf"({'|'.join(STATES)})(?:: (.*))?")
_GATE = re.compile(rf"([\w-]+) (pass|fail|no-data|{NOT_JUDGED}): (.*)")
_FOR_HOW_LONG = re.compile(r"(for )?\d+ s( of at most .*)?")
# A pass that somebody should read: the gate had failed just before.
_AT_SECOND = "asked again after it failed once"
_IN_CAPITALS = ("NOT JUDGED", "STILL OUT OF ROTATION")

_STAGING = re.compile(
    r"(?:model|image|release) \S+: (?:checking |fetching |already |the files in place are verified"
    r"|verified and in place|pulling$|loading |here, |the container sees the GPU|written to )"
)
_PROOF = "proof: "
# What `docker pull` prints of its layers.
_LAYER = re.compile(r"  (?:[0-9a-f]{12}: |\S+: Pulling from |Digest: |Status: |\S+@sha256:[0-9a-f]{64}$)")

_NUMBER = r"\d+(?:\.\d+)?"
# The figures that a line of passing gates shows: by gate, what it is called and how it stands in the gate's sentence.
_FIGURES = {
    "acceptance-short": ("acceptance rate ", re.compile(rf"({_NUMBER}) (%)")),
    "mean-acceptance-length-short": ("mean acceptance length ", re.compile(rf"({_NUMBER})()")),
    "tokens-per-second-short": ("", re.compile(rf"({_NUMBER}) (tok/s)")),
}


@dataclass(frozen=True)
class Said:
    """A line to print, without the name of its host."""

    text: str
    rank: Rank = "step"


class Narration:
    """One command's output on one host, line by line."""

    def __init__(self) -> None:
        self._phase = ""
        # What the phase printed last; it is printed when the next one begins.
        self._held = ""
        self._passed: dict[str, list[str]] = {}
        self._unjudged: dict[str, None] = {}
        self._going_back = False
        self._last: Rank | None = None
        self._spoke: float | None = None

    def hear(self, text: str, now: float) -> list[Said]:
        """Take the next line, at a time in seconds; return what is to be printed now."""
        said = [one for one in self._heard(text) if one.text]
        if self._spoke is None or said:
            self._spoke = now
        elif self._held and now - self._spoke >= SIGN_S:
            self._spoke = now
            said = [Said(self._held)]
        return said

    def end(self) -> list[Said]:
        """Return what was still held back when the command has ended."""
        return [one for one in self._turn("") if one.text]

    def _heard(self, text: str) -> Iterator[Said]:
        if text.startswith(" "):
            yield from self._continued(text)
        elif found := _STATE.fullmatch(text):
            yield from self._entry(text, found[1], found[2] or "")
        elif _STAGING.match(text):
            yield from self._turn("staging")
            self._held = text
        elif text.startswith(_PROOF):
            proof = text.removeprefix(_PROOF)
            yield from self._turn("staged")
            self._held = f"{self._held}; {proof}" if self._held else f"staged: {proof}"
        else:
            yield from self._aloud(text, "alarm")

    def _continued(self, text: str) -> Iterator[Said]:
        """A line that belongs to the one before it: the log below an error, a download's layers."""
        if _LAYER.match(text):
            return
        if self._last is None and self._phase != "staging":
            self._held += f"\n{text}"
        else:
            yield Said(text, self._last or "alarm")

    def _entry(self, text: str, state: str, rest: str) -> Iterator[Said]:
        if state in (COMMITTED, REVERTED, FAILED):
            warns = state != COMMITTED or any(words in rest for words in _IN_CAPITALS)
            yield from self._aloud(text, "alarm" if warns else "end")
        elif state == REVERTING and not self._going_back:
            self._going_back = True
            yield from self._aloud(text, "alarm")
        elif gate := _GATE.fullmatch(rest):
            yield from self._gate(text, state, *gate.groups())
        elif _FOR_HOW_LONG.fullmatch(rest):
            self._hold(text)
        elif state != REVERTING:
            yield from self._turn(state)
            self._hold(text)
        elif (step := rest.partition(": ")[0]) in STATES:
            yield from self._turn(f"{state}: {step}")
            self._hold(text)
        else:
            yield from self._aloud(text, "alarm")

    def _gate(self, text: str, state: str, name: str, verdict: str, detail: str) -> Iterator[Said]:
        quiet = verdict in ("pass", NOT_JUDGED) and _AT_SECOND not in detail
        if quiet and name == "ready":
            # The end of the start, and no gate of those that are asked then.
            self._hold(f"{self._phase or STARTING}: {detail}")
            return
        yield from self._turn(state)
        if not quiet:
            yield from self._aloud(text, "step" if verdict == "pass" else "alarm")
            return
        self._last = None
        if verdict == NOT_JUDGED:
            self._unjudged[name] = None
        else:
            self._passed.setdefault(name, []).append(detail)

    def _hold(self, text: str) -> None:
        self._held, self._last = text, None

    def _aloud(self, text: str, rank: Rank) -> Iterator[Said]:
        yield from self._turn("")
        self._last = rank
        yield Said(text, rank)

    def _turn(self, phase: str) -> Iterator[Said]:
        """Begin a phase; unless it is the same, what the one before holds back comes now."""
        if phase and phase == self._phase:
            return
        if self._passed or self._unjudged:
            yield Said(self._folded())
        elif self._phase != "staging":
            yield Said(self._held)
        self._phase, self._held, self._last = phase, "", None
        self._passed, self._unjudged = {}, {}

    def _folded(self) -> str:
        count, rounds = len(self._passed), max(map(len, self._passed.values()), default=1)
        text = f"{self._phase}: {count} gate{'s pass' if count != 1 else ' passes'}"
        text += f" in {rounds} rounds" if rounds > 1 else ""
        if self._unjudged:
            text += f", {len(self._unjudged)} not judged while others are served"
        figures = [shown for name in _FIGURES if (shown := self._figure(name))]
        return f"{text}: {', '.join(figures)}" if figures else text

    def _figure(self, name: str) -> str:
        label, pattern = _FIGURES[name]
        found = [match for detail in self._passed.get(name, ()) if (match := pattern.search(detail))]
        if not found:
            return ""
        values = sorted((match[1] for match in found), key=float)
        span = values[0] if values[0] == values[-1] else f"{values[0]}–{values[-1]}"
        return f"{label}{span} {found[0][2]}".rstrip()

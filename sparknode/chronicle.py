"""Writing the journal of one activation, and reading a record aloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparknode import journal
from sparknode.gates import GateResult
from sparknode.journal import Attempt, Record
from sparknode.system import Host

Tell = Callable[[str], None]


@dataclass
class Chronicle:
    """Writes each step of one activation before it's taken, and says it aloud."""

    host: Host
    activation: str
    rollout: str
    operator: str
    release: str
    source: str | None
    tell: Tell
    going_back: bool = False

    @classmethod
    def resume(cls, host: Host, attempt: Attempt, tell: Tell) -> Chronicle:
        """Go on writing an activation that another process began."""
        last = attempt.last
        source = last.get("from")
        return cls(
            host,
            attempt.activation,
            str(last.get("rollout")),
            str(last.get("operator")),
            attempt.release,
            source if isinstance(source, str) else None,
            tell,
        )

    def write(
        self,
        state: str,
        *,
        note: str | None = None,
        gate: GateResult | None = None,
        error: str | None = None,
        load_s: float | None = None,
    ) -> None:
        """One durable line. On the way back a journal that can't be written must not stop the node from healing."""
        record: Record = {
            "t": journal.timestamp(self.host.system.now()),
            "activation": self.activation,
            "rollout": self.rollout,
            "operator": self.operator,
            "release": self.release,
            "from": self.source,
            "state": state,
        }
        more: dict[str, Any] = {
            "note": note,
            "gate": gate.record if gate else None,
            "error": error,
            "load_s": load_s,
        }
        record.update({key: value for key, value in more.items() if value is not None})
        try:
            journal.append(self.host.paths, record)
        except OSError as problem:
            if not self.going_back:
                raise
            self.tell(f"the journal can't be written ({problem}); going on without it")
        self.tell(sentence(record))

    def enter(self, step: str, note: str) -> None:
        """Begin a step; on the way back the state stays `reverting` and the step stands in the note."""
        if self.going_back:
            self.write(journal.REVERTING, note=f"{step}: {note}")
        else:
            self.write(step, note=note)

    def gate(self, step: str, result: GateResult, load_s: float | None = None) -> None:
        state = journal.REVERTING if self.going_back else step
        self.write(state, note=result.detail, gate=result, load_s=load_s)


def sentence(record: Record) -> str:
    """A record as one line for the person who watches, with log lines indented below it."""
    state, note, error, gate = (record.get(key) for key in ("state", "note", "error", "gate"))
    if isinstance(gate, dict):
        return f"{state}: {gate.get('name')} {gate.get('verdict')}: {note}"
    parts = [str(part) for part in (error, note) if part]
    text = f"{state}: " + "; ".join(parts) if parts else str(state)
    return text.replace("\n", "\n    ")

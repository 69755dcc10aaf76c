"""Writing the journal of one activation, and reading a record aloud."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparknode import journal
from sparknode.journal import Attempt, Record
from sparknode.lease import Hold
from sparknode.system import Host
from sparknode.verdict import GateResult

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
    lease: Hold | None = None
    intent: str | None = None
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
            intent=last.get("intent"),
        )

    def write(self, state: str, *, gate: GateResult | None = None, **more: str | float | None) -> None:
        """One durable line. On the way back a journal that can't be written must not stop the node from healing."""
        record: Record = {
            "t": journal.timestamp(self.host.system.now()),
            "activation": self.activation,
            "rollout": self.rollout,
            "operator": self.operator,
            "release": self.release,
            "from": self.source,
            "state": state,
            **({"intent": self.intent} if self.intent else {}),
        }
        record.update({key: value for key, value in more.items() if value is not None})
        if gate:
            record["gate"] = gate.record
        try:
            journal.append(self.host.paths, record)
        except OSError as problem:
            if not self.going_back:
                raise
            self.tell(f"the journal can't be written ({problem}); going on without it")
        self.tell(sentence(record))

    def require_lease(self) -> None:
        """Fail the step when the host was given to a newer roll-out. The way back asks nobody."""
        if self.lease and not self.going_back:
            self.lease.check()

    def pause(self, seconds: float) -> None:
        """Wait within a step, and keep the lease meanwhile."""
        self.host.system.sleep(seconds)
        if self.lease and not self.going_back:
            self.lease.keep()

    def enter(self, step: str, note: str, deadline_s: float | None = None) -> None:
        """Begin a step; on the way back the state stays `reverting` and the step stands in the note."""
        self.require_lease()
        if self.going_back:
            self.write(journal.REVERTING, note=f"{step}: {note}", deadline_s=deadline_s)
        else:
            self.write(step, note=note, deadline_s=deadline_s)

    def gate(self, step: str, result: GateResult, **more: str | float | None) -> None:
        state = journal.REVERTING if self.going_back else step
        self.write(state, note=result.detail, gate=result, **more)


def sentence(record: Record) -> str:
    """A record as one line for the person who watches, with log lines indented below it."""
    state, note, error, gate = (record.get(key) for key in ("state", "note", "error", "gate"))
    if isinstance(gate, dict):
        return f"{state}: {gate.get('name')} {gate.get('verdict')}: {note}"
    parts = [str(part) for part in (error, note) if part]
    text = f"{state}: " + "; ".join(parts) if parts else str(state)
    return text.replace("\n", "\n    ")

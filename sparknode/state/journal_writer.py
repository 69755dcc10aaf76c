"""Writing the journal of one activation, and reading a record aloud."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sparknode.base.system import Host, Tell
from sparknode.state import journal
from sparknode.state.gate_result import GateResult
from sparknode.state.journal import Attempt, Record
from sparknode.state.orders import Order

END_TRIES, END_PAUSE_S = 7, 10.0


@dataclass
class Chronicle:
    """Writes each step of one activation before it's taken, and says it aloud."""

    host: Host
    order: Order
    source: str | None
    tell: Tell
    # From the first line that says so on, the engine that served before has to be started again.
    touched: bool = False
    going_back: bool = False

    @classmethod
    def of(cls, host: Host, order: Order, cut: Attempt, tell: Tell) -> Chronicle:
        """Go on writing an activation that an earlier process began."""
        source = cut.last.get("from")
        touched = any(record["state"] not in journal.UNTOUCHED for record in cut.records)
        return cls(host, order, source if isinstance(source, str) else None, tell, touched)

    def write(self, state: str, *, gate: GateResult | None = None, **more: str | float | None) -> None:
        """One durable line. On the way back a journal that can't be written must not stop the node from healing."""
        order = self.order
        record: Record = {
            "t": journal.timestamp(self.host.system.now()),
            "activation": order.activation,
            "rollout": order.rollout,
            "operator": order.operator,
            "release": order.release,
            "from": self.source,
            "state": state,
            **({"intent": order.intent} if order.intent else {}),
        }
        record.update({key: value for key, value in more.items() if value is not None})
        if gate:
            record["gate"] = gate.record
        # The line that ends it is worth waiting for room.
        for left in reversed(range(END_TRIES if state in journal.TERMINAL and self.going_back else 1)):
            try:
                journal.append(self.host.paths, record)
                break
            except OSError as problem:
                if not self.going_back:
                    raise
                self._say(f"the journal can't be written ({problem}); going on without it")
            if left:
                self.host.system.sleep(END_PAUSE_S)
        self.touched |= state not in journal.UNTOUCHED
        self._say(sentence(record))

    def _say(self, text: str) -> None:
        # Whoever listened may have gone, and that is no fault of a step.
        with suppress(OSError):
            self.tell(text)

    def enter(self, step: str, note: str, deadline_s: float | None = None) -> None:
        """Begin a step; on the way back the state stays `reverting` and the step stands in the note."""
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

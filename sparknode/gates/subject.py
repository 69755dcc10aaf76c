"""What a gate found, and the engine that it asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparknode.base.system import Host
from sparknode.engine.client import Chat, Engine
from sparknode.state.gate_result import FAIL, NO_DATA, PASS, GateResult
from sparknode.state.release import Release


def at_least(
    name: str, figure: float | None, least: float | None, unit: str, said: str, *, more: str = "", of_host: bool = False
) -> GateResult:
    """A figure against its floor; a floor of None only measures."""
    if figure is None:
        return GateResult(name, None, least, unit, NO_DATA, said, of_host)
    if least is None:
        return GateResult(name, figure, None, unit, PASS, said + more, of_host)
    floor = f"{100 * least:.1f} %" if unit == "ratio" else f"{least:.2f}" if unit == "tokens" else f"{least:g} {unit}"
    verdict = PASS if figure >= least else FAIL
    return GateResult(name, figure, least, unit, verdict, f"{said}, expected at least {floor}{more}", of_host)


@dataclass
class Subject:
    """The engine under test, and what it said to each gate; `crowded` once no calm moment came to measure in."""

    host: Host
    release: Release
    engine: Engine
    said: list[tuple[str, Chat]] = field(default_factory=list)
    crowded: bool = False

    @property
    def spoken(self) -> list[Chat]:
        return [chat for _, chat in self.said]

    def ask(self, gate: str, content: str | list[dict[str, Any]], max_tokens: int, **more: object) -> Chat:
        chat = self.engine.chat(content, max_tokens, **more)
        self.said.append((gate, chat))
        return chat

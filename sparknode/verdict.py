"""What a gate found, and the engine that it asks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sparknode.engine import Chat, Engine
from sparknode.release import Release
from sparknode.system import Host

PASS, FAIL, NO_DATA = "pass", "fail", "no-data"


@dataclass(frozen=True)
class GateResult:
    """What one gate measured; `detail` is the sentence for a person.

    `of_host` marks what the host may be guilty of and not the release, `proof` an answer that proves the fault, so that
    asking again can change nothing, and `collapsed` an acceptance that no prompt of a healthy engine has.
    """

    name: str
    figure: float | None
    threshold: float | None
    unit: str
    verdict: str
    detail: str
    of_host: bool = False
    proof: bool = False
    collapsed: bool = False

    @property
    def failed(self) -> bool:
        """No data fails where a floor asks for data."""
        return self.verdict == FAIL or (self.verdict == NO_DATA and self.threshold is not None)

    @property
    def record(self) -> dict[str, Any]:
        return {
            key: value for key, value in asdict(self).items() if key not in {"detail", "of_host", "proof", "collapsed"}
        }

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


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

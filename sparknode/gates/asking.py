"""How a gate is asked: once more before it condemns, and without blaming an engine for what others asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from sparknode import NOT_JUDGED
from sparknode.engine import traffic
from sparknode.gates.subject import Subject
from sparknode.state.gate_result import PASS, GateResult

Asker = Callable[[Subject], Iterator[GateResult]]

RETRY_PAUSE_S = 1.0
# A host that is never calm is not waited for at each gate.
CALM_S = 5.0


def results(subject: Subject, ask: Asker, alone: frozenset[str]) -> list[GateResult]:
    """What a gate found. `alone` names those of its figures that count only while nobody else is served."""
    found = _measured(subject, ask, alone)
    if any(result.verdict == NOT_JUDGED for result in found) and not subject.crowded:
        if not traffic.calm(subject.engine, subject.host.system, CALM_S):
            subject.crowded = True
        else:
            found = _measured(subject, ask, alone)
    failed = next((result for result in found if result.failed), None)
    if failed is None or failed.proof or _dying(subject, failed):
        return found
    subject.host.system.sleep(RETRY_PAUSE_S)
    return [_again(result, failed) for result in _measured(subject, ask, alone)]


def _dying(subject: Subject, failed: GateResult) -> bool:
    """Is the engine gone, or about to be? Its first words say more of the cause than anything it answers now."""
    answer = subject.engine.health()
    return answer.refused or (failed.unit != "HTTP" and answer.status is not None and answer.status >= 500)


def _again(result: GateResult, failed: GateResult) -> GateResult:
    if result.name != failed.name:
        return result
    said = "; asked twice" if result.failed else f"; asked again after it failed once ({failed.detail})"
    return replace(result, detail=result.detail + said)


def _measured(subject: Subject, ask: Asker, alone: frozenset[str]) -> list[GateResult]:
    """Ask, and take from the figures what they are worth beside other requests."""
    engine, system, first = subject.engine, subject.host.system, len(subject.said)
    before = traffic.read(engine, system)
    found = list(ask(subject))
    own = subject.spoken[first:]
    late = any(chat.late for chat in own)
    if not alone and not (late and any(result.failed for result in found)):
        return found
    after = traffic.read(engine, system)
    others = traffic.others(before, after, own)
    if others is None:
        return found
    # An engine that is too busy with others to answer us is not to blame; one that answers nobody is. Our own request
    # that was given up may have made its tokens all the same.
    served = late and traffic.made_for_others(before, after, 2 * subject.release.gates.short.max_tokens)
    return [_beside(result, others, alone, served) for result in found]


def _beside(result: GateResult, others: str, alone: frozenset[str], served: bool) -> GateResult:
    if result.name in alone and result.figure is not None and not result.collapsed:
        said = f"{result.detail}; not judged, as {others} meanwhile"
        return replace(result, threshold=None, verdict=NOT_JUDGED, detail=said)
    if served and result.failed and result.verdict != PASS:
        return replace(result, of_host=True, detail=f"{result.detail}; {others} meanwhile")
    return result

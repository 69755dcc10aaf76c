"""The burst of the soak: many requests at once, because some engines collapse only under concurrency.

The model card's defect of a cached prefix showed after 25 minutes of a fleet's burst, at 0 % of accepted tokens and for
good; a short burst with prompts of different lengths, then the other gates once more, is what a soak has time for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparknode.engine.client import Chat, counters
from sparknode.gates import prompts
from sparknode.gates.subject import Subject, at_least
from sparknode.state.gate_result import FAIL, NO_DATA, PASS, GateResult
from sparknode.state.release import Burst


def burst(subject: Subject) -> Iterator[GateResult]:
    """Ask everything at once, with the model's own sampling; every request has to be answered."""
    asked = subject.release.gates.burst
    assert asked is not None, "the table asks for a burst only where the release has one"
    engine, speculative = subject.engine, subject.release.serve.speculative
    before = counters(engine.metrics()) if speculative else None
    started = subject.host.system.monotonic()
    chats = _at_once(subject, asked)
    seconds = subject.host.system.monotonic() - started
    subject.said.extend(("burst", chat) for chat in chats)
    problems = [chat.problem for chat in chats if chat.problem and not chat.empty]
    figure = float(len(chats) - len(problems))
    said = f"{figure:.0f} of {len(chats)} requests at once were answered, after {seconds:.1f} s"
    said += f"; {problems[0]}" if problems else ""
    yield GateResult("burst", figure, float(len(chats)), "requests", FAIL if problems else PASS, said)
    if not speculative:
        return
    after = counters(engine.metrics())
    moved = after.since(before) if before and after else None
    if moved is None or moved.went_back or not moved.draft_tokens:
        missing = "the engine counted no drafts during the burst; is speculation on?"
        yield GateResult("acceptance-burst", None, asked.min_acceptance_rate, "ratio", NO_DATA, missing)
        return
    rate = round(moved.accepted / moved.draft_tokens, 4)
    said = f"{100 * rate:.1f} % of drafted tokens accepted in the burst"
    yield at_least("acceptance-burst", rate, asked.min_acceptance_rate, "ratio", said)


def _at_once(subject: Subject, asked: Burst) -> list[Chat]:
    # Here, because it takes 12 ms, which every command that activates would wait for.
    from concurrent.futures import ThreadPoolExecutor

    def ask(prompt: str) -> Chat:
        return subject.engine.chat(prompt, asked.max_tokens, temperature=None)

    with ThreadPoolExecutor(asked.requests) as pool:
        return list(pool.map(ask, prompts.burst_prompts(asked.requests)))

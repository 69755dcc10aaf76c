"""Is the engine healthy? Each gate measures one thing on the running engine and gives its figure.

`/health` alone proves nothing (it is 200 with an engine that hangs), so the proof is real generation: identity, a
chat, and the drafter's acceptance over fixed prompts, counted as differences of the engine's own counters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sparknode import docker, prompts
from sparknode.engine import Chat, Counters, Engine, counters, problem_of
from sparknode.release import Floors, Release
from sparknode.system import Host

PASS, FAIL, NO_DATA = "pass", "fail", "no-data"
# A daemon that hiccups once must not cost a healthy release its life.
DOCKER_TRIES = 4
DOCKER_PAUSE_S = 2.0
_CONTROL_TOKEN = re.compile(
    r"<\|[a-z_/]{2,40}\|?>|<[a-z_]{2,40}\|>|</?(?:start|end)_of_turn>|<(?:eos|bos|pad|unk|mask)>|<unused\d+>"
)


@dataclass(frozen=True)
class GateResult:
    """What one gate measured; `detail` is the sentence for a person."""

    name: str
    figure: float | None
    threshold: float | None
    unit: str
    verdict: str
    detail: str

    @property
    def failed(self) -> bool:
        """No data fails where a floor asks for data."""
        return self.verdict == FAIL or (self.verdict == NO_DATA and self.threshold is not None)

    @property
    def record(self) -> dict[str, Any]:
        """As the journal holds it."""
        return {key: value for key, value in asdict(self).items() if key != "detail"}

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class Subject:
    """The engine under test."""

    host: Host
    release: Release
    engine: Engine


def all_gates(subject: Subject) -> Iterator[GateResult]:
    """Every gate in order, one at a time: whoever reads stops at the first that failed."""
    yield health(subject, "health")
    yield identity(subject)
    yield short_chat(subject)
    yield from acceptance(subject, "short", list(prompts.CODING), subject.release.short)
    floors = subject.release.long
    if floors:
        prompt = prompts.long_prompt(floors.prompt_tokens, subject.engine.count_tokens)
        yield from acceptance(subject, "long", [prompt], floors)
    yield health(subject, "health-after")


def health(subject: Subject, name: str) -> GateResult:
    """`/health` says 200: the engine core lives."""
    answer = subject.engine.health()
    problem = problem_of(answer)
    figure = float(answer.status) if answer.status is not None else None
    detail = f"/health gave {problem}, expected HTTP 200" if problem else "/health gave HTTP 200"
    return GateResult(name, figure, 200.0, "HTTP", FAIL if problem else PASS, detail)


def is_version(found: str, expected: str) -> bool:
    """Is this the expected version, perhaps with a suffix of whoever built it?"""
    return re.match(re.escape(expected) + r"(?!\.?\d)", found) is not None


def identity(subject: Subject) -> GateResult:
    """The engine that answers is the one that the release describes."""
    release = subject.release
    found = docker.container(subject.host.system, release.container.name)
    for _ in range(DOCKER_TRIES - 1):
        if not found.error:
            break
        subject.host.system.sleep(DOCKER_PAUSE_S)
        found = docker.container(subject.host.system, release.container.name)
    differences = docker.drift(subject.host.system, release, found)
    if release.engine_version:
        version = subject.engine.version()
        if version is None or not is_version(version, release.engine_version):
            differences.append(f"/version says {version}, the release says {release.engine_version}")
    cards, problem = subject.engine.models()
    differences += [f"/v1/models gave {problem}"] if problem else served_differences(release, cards)
    detail = "; ".join(differences) or f"the container, /version and {len(cards)} served names are the release's"
    return GateResult("identity", float(len(differences)), 0.0, "differences", FAIL if differences else PASS, detail)


def served_differences(release: Release, cards: list[dict[str, Any]]) -> list[str]:
    """What `/v1/models` says otherwise than the release."""
    serve = release.serve
    named = {str(card.get("id")): card for card in cards}
    texts = []
    for name in serve.served_names:
        card = named.get(name)
        if card is None:
            texts.append(f"/v1/models does not serve {name!r} (it serves {', '.join(sorted(named)) or 'nothing'})")
            continue
        for key, expected in (("root", serve.model_root), ("max_model_len", serve.max_model_len)):
            if card.get(key) != expected:
                texts.append(f"/v1/models: {key} of {name!r} is {card.get(key)!r}, the release says {expected!r}")
    return texts


def short_chat(subject: Subject) -> GateResult:
    """One chat comes back as text, and no control token leaks into it."""
    chat = subject.engine.chat(prompts.CHAT, subject.release.short.max_tokens)
    leaked = _CONTROL_TOKEN.search(chat.text)
    problem = chat.problem
    if not problem and leaked:
        problem = f"the text holds the control token {leaked[0]!r}; is the chat template the model's own?"
    detail = problem or f"{chat.completion_tokens} tokens in {chat.seconds:.1f} s"
    figure = float(chat.completion_tokens)
    return GateResult("short-chat", figure, 1.0, "tokens", FAIL if problem else PASS, detail)


def acceptance(subject: Subject, kind: str, questions: list[str], floors: Floors) -> Iterator[GateResult]:
    """The drafter's acceptance over prompts, its mean acceptance length, and the speed they were answered with."""
    engine, speculative = subject.engine, subject.release.serve.speculative
    before = counters(engine.metrics()) if speculative else None
    chats = []
    for question in questions:
        chats.append(engine.chat(question, floors.max_tokens))
        if chats[-1].problem:
            yield GateResult(
                f"prompts-{kind}",
                float(len(chats) - 1),
                float(len(questions)),
                "prompts",
                FAIL,
                _unanswered(chats),
            )
            return
    if speculative:
        after = counters(engine.metrics())
        yield from judge(kind, after.since(before) if after and before else None, floors)
    yield speed(kind, chats)


def _unanswered(chats: list[Chat]) -> str:
    return f"prompt {len(chats)}: {chats[-1].problem}"


def judge(kind: str, moved: Counters | None, floors: Floors) -> Iterator[GateResult]:
    """Two results out of what the counters moved by: the acceptance rate and the mean acceptance length."""
    rate, length = f"acceptance-{kind}", f"mean-acceptance-length-{kind}"
    least, shortest = floors.acceptance_rate, floors.mean_acceptance_length
    missing = None
    if moved is None:
        missing = "the engine counts no drafts in /metrics; is speculation on?"
    elif moved.went_back:
        missing = "the engine's counters went back while it answered, so it was restarted"
    elif moved.drafts == 0 or moved.draft_tokens == 0:
        missing = "the engine drafted nothing while it answered; is speculation on?"
    if moved is None or missing:
        yield GateResult(rate, None, least, "ratio", NO_DATA, missing or "")
        yield GateResult(length, None, shortest, "tokens", NO_DATA, missing or "")
        return
    ratio = round(moved.accepted / moved.draft_tokens, 4)
    mean = round(1 + moved.accepted / moved.drafts, 2)
    by_position = ", ".join(f"{value / moved.drafts:.0%}" for value in moved.positions.values())
    where = f"; by position {by_position}" if by_position else ""
    yield _floored(rate, ratio, least, "ratio", "{:.1%} of drafted tokens accepted", "{:.1%}", where)
    yield _floored(length, mean, shortest, "tokens", "mean acceptance length {:.2f}", "{:.2f}", "")


def _floored(name: str, figure: float, least: float | None, unit: str, found: str, floor: str, more: str) -> GateResult:
    said = found.format(figure).replace("%", " %")
    if least is None:
        return GateResult(name, figure, None, unit, PASS, said + more)
    expected = floor.format(least).replace("%", " %")
    verdict = PASS if figure >= least else FAIL
    return GateResult(name, figure, least, unit, verdict, f"{said}, expected at least {expected}{more}")


def speed(kind: str, chats: list[Chat]) -> GateResult:
    """Tokens a second over the prompts, from the engine's own count; measured, never judged."""
    seconds = sum(chat.seconds for chat in chats)
    tokens = sum(chat.completion_tokens for chat in chats)
    asked = sum(chat.prompt_tokens for chat in chats)
    figure = round(tokens / seconds, 1) if seconds > 0 else None
    detail = f"{tokens} tokens in {seconds:.1f} s after {asked} prompt tokens"
    return GateResult(f"tokens-per-second-{kind}", figure, None, "tok/s", PASS if figure else NO_DATA, detail)

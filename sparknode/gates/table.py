"""Is the engine healthy? Each gate measures one thing on the running engine and gives its figure.

`/health` alone proves nothing (it is 200 with an engine that hangs), so the proof is real generation: identity, a
chat, and the drafter's acceptance over fixed prompts, counted as differences of the engine's own counters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from sparknode.base import parse
from sparknode.engine.client import Chat, Counters, counters, problem_of
from sparknode.gates import asking, exchanges, prompts
from sparknode.gates.asking import Asker
from sparknode.gates.burst import burst
from sparknode.gates.subject import Subject, at_least
from sparknode.host import docker, memory
from sparknode.state.gate_result import FAIL, NO_DATA, PASS, GateResult
from sparknode.state.release import Floors, Gates, LongFloors, Release

# A daemon that hiccups once must not cost a healthy release its life.
DOCKER_TRIES = 4
DOCKER_PAUSE_S = 2.0
# Once a second, and long enough that no pause between two answers looks like a wedge (minefield trap 124).
POWER_AFTER_S, LOAD_S = 1.0, 20.0
BUSY = 90.0


def health(subject: Subject, name: str = "health") -> Iterator[GateResult]:
    answer = subject.engine.health()
    problem = problem_of(answer)
    figure = float(answer.status) if answer.status is not None else None
    detail = f"/health gave {problem}, expected HTTP 200" if problem else "/health gave HTTP 200"
    yield GateResult(name, figure, 200.0, "HTTP", FAIL if problem else PASS, detail)


def is_version(found: str, expected: str) -> bool:
    """Is this the expected version, perhaps with a suffix of whoever built it?"""
    return re.match(re.escape(expected) + r"(?!\.?\d)", found) is not None


def identity(subject: Subject) -> Iterator[GateResult]:
    """The engine that answers is the one that the release describes."""
    release = subject.release
    found = docker.container(subject.host.system, release.container.name)
    for _ in range(DOCKER_TRIES - 1):
        if found.error:
            subject.host.system.sleep(DOCKER_PAUSE_S)
            found = docker.container(subject.host.system, release.container.name)
    differences = docker.drift(subject.host.system, release, found)
    version = subject.engine.version() if release.engine.version else None
    if release.engine.version and (version is None or not is_version(version, release.engine.version)):
        differences.append(f"/version is {version}, the release has {release.engine.version}")
    cards, problem = subject.engine.models()
    differences += [f"/v1/models gave {problem}"] if problem else served_differences(release, cards)
    detail = "; ".join(differences) or f"the container, /version and {len(cards)} served names are the release's"
    # A daemon that says nothing says nothing of the release.
    verdict = NO_DATA if found.error else FAIL if differences else PASS
    # What the engine did answer, and differs, it will answer again; what it did not answer is asked once more.
    proof = not found.error and not problem and (version is not None or not release.engine.version)
    figure = float(len(differences))
    yield GateResult("identity", figure, 0.0, "differences", verdict, detail, of_host=bool(found.error), proof=proof)


def served_differences(release: Release, cards: list[dict[str, Any]]) -> list[str]:
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
                texts.append(f"/v1/models: {key} of {name!r} is {card.get(key)!r}, the release has {expected!r}")
    return texts


def gpu(subject: Subject) -> Iterator[GateResult]:
    """The container still sees the GPU, which a daemon-reload can take from it (nvidia-container-toolkit#48)."""
    seen, said = docker.sees_gpu(subject.host.system, subject.release.container.name)
    verdict = NO_DATA if seen is None else PASS if seen else FAIL
    figure, least = (None, None) if seen is None else (float(seen), 1.0)
    yield GateResult("gpu", figure, least, "GPUs", verdict, said, of_host=True)


def available(subject: Subject) -> Iterator[GateResult]:
    """What is left for the host beside the loaded engine."""
    least = subject.release.gates.limits.min_available_gib
    found = memory.available_gib(subject.host.paths)
    said = f"{found:.1f} GiB available beside the loaded engine" if found is not None else "/proc/meminfo names none"
    yield at_least("memory-available", found, least, "GiB", said, of_host=True)


def power(subject: Subject) -> Iterator[GateResult]:
    """What the GPU draws while it works; one that draws too little for LOAD_S is not asked again."""
    least = subject.release.gates.limits.min_power_w
    if least is not None:
        yield replace(_power(subject, least), proof=True)


def _power(subject: Subject, least: float) -> GateResult:
    """The GPU draws power while it works. One that is wedged is busy at low clocks for as long as it is asked.

    A look that finds enough power ends it; only a GPU under suspicion is kept at work for LOAD_S (minefield trap 124).
    """
    # Here, because the two take 12 ms, which every command that activates would wait for.
    import statistics
    from concurrent.futures import ThreadPoolExecutor

    clock = subject.host.system
    samples: list[tuple[float, float, float]] = []
    until = clock.monotonic() + LOAD_S
    with ThreadPoolExecutor(1) as pool:
        work = None
        while not samples or (samples[-1][0] < least and clock.monotonic() < until):
            if work is None or work.done():
                tokens = subject.release.gates.short.max_tokens
                work = pool.submit(subject.ask, "power", prompts.CODING[0], tokens)
            clock.sleep(POWER_AFTER_S)
            done = clock.run(parse.LOAD_ARGV, 10.0)
            sample = parse.load(done.stdout) if done.ok else None
            if sample is None:
                said = f"nvidia-smi names no power, clock and utilization ({done.why})"
                return GateResult("power", None, least, "W", NO_DATA, said, of_host=True)
            samples.append(sample)
    watts, clocks, busy = (statistics.median(column) for column in zip(*samples, strict=True))
    slowest = subject.release.gates.limits.min_clock_mhz
    if samples[-1][0] >= least:
        return at_least("power", samples[-1][0], least, "W", f"{samples[-1][0]:.0f} W while it answers", of_host=True)
    said = f"{watts:.0f} W at {clocks:.0f} MHz and {busy:.0f} % for {LOAD_S:.0f} s, expected at least {least:g} W"
    if busy >= BUSY and (slowest is None or clocks < slowest):
        said += "; the power supply is wedged: shut down, unplug both ends for 60 s (a reboot is not enough)"
        return GateResult("power", watts, least, "W", FAIL, said, of_host=True)
    return GateResult("power", watts, None, "W", PASS, f"{said}; not judged, because a wedged supply looks different")


def acceptance(subject: Subject, kind: str) -> Iterator[GateResult]:
    """The drafter's acceptance over prompts, its mean acceptance length, and the speed they were answered with."""
    asked = subject.release.gates
    floors = {"short": asked.short, "long": asked.long, "very-long": asked.very_long}[kind]
    if floors is None:
        return
    engine, speculative = subject.engine, subject.release.serve.speculative
    questions = list(prompts.CODING)
    if isinstance(floors, LongFloors):
        questions = [prompts.long_prompt(floors.prompt_tokens, engine.count_tokens)]
    before = counters(engine.metrics()) if speculative else None
    chats = []
    for question in questions:
        chats.append(subject.ask(f"prompts-{kind}", question, floors.max_tokens))
        if chats[-1].problem:
            said = f"prompt {len(chats)}: {chats[-1].problem}"
            yield GateResult(f"prompts-{kind}", len(chats) - 1.0, float(len(questions)), "prompts", FAIL, said)
            return
    if speculative:
        after = counters(engine.metrics())
        collapse = subject.release.watched.min_acceptance_rate if subject.release.watched else None
        yield from judge(kind, after.since(before) if after and before else None, floors, collapse)
    yield speed(kind, chats, asked.floors.min_tokens_per_second if kind == "short" else None)


def judge(kind: str, moved: Counters | None, floors: Floors, collapse: float | None = None) -> Iterator[GateResult]:
    """Two results out of what the counters moved by: the acceptance rate and the mean acceptance length.

    A rate below `collapse` proves the fault whoever asked: no healthy drafter is as low on anybody's prompts.
    """
    rate, length = f"acceptance-{kind}", f"mean-acceptance-length-{kind}"
    least, shortest = floors.min_acceptance_rate, floors.min_mean_acceptance_length
    missing = None
    if moved is None:
        missing = "the engine counts no drafts in /metrics; is speculation on?"
    elif moved.went_back:
        missing = "the engine's counters went backwards while it answered, so it was restarted"
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
    said = f"{100 * ratio:.1f} % of drafted tokens accepted"
    collapsed = collapse is not None and ratio < collapse
    yield replace(at_least(rate, ratio, least, "ratio", said, more=where), collapsed=collapsed)
    yield at_least(length, mean, shortest, "tokens", f"mean acceptance length {mean:.2f}")


def speed(kind: str, chats: list[Chat], least: float | None) -> GateResult:
    """Tokens a second over the prompts, from the engine's own count."""
    seconds = sum(chat.seconds for chat in chats)
    tokens = sum(chat.completion_tokens for chat in chats)
    asked = sum(chat.prompt_tokens for chat in chats)
    figure = round(tokens / seconds, 1) if seconds > 0 else None
    said = f"{figure} tok/s, {tokens} tokens in {seconds:.1f} s after {asked} prompt tokens"
    return at_least(f"tokens-per-second-{kind}", figure, least, "tok/s", said)


@dataclass(frozen=True)
class Gate:
    """A gate's row: what measures it, when a release asks for it, what it is worth, and what it is, in a line.

    `ask` is None where a step of the activation measures it itself. `margin` names the share by which a canary's figure
    may be worse than the old release's. What is `alone` counts only while nobody else is served.
    """

    id: str
    ask: Asker | None
    unit: str
    about: str
    wanted: Callable[[Gates], bool] = lambda _: True
    when: Literal["start", "always", "soak"] = "always"
    blames: Literal["release", "host"] = "release"
    margin: str | None = None
    worse: Literal["lower", "higher"] = "lower"
    alone: bool = False


_SHORT, _LONG, _VERY_LONG = (partial(acceptance, kind=kind) for kind in ("short", "long", "very-long"))
_AFTER = partial(health, name="health-after")


def _acceptance_rows(kind: str, ask: Asker, prompt: str, wanted: Callable[[Gates], bool]) -> tuple[Gate, ...]:
    """The four rows of one kind of prompt."""
    drop, slower = "max_acceptance_drop", "max_tokens_per_second_drop"
    rate, length = f"drafted tokens accepted over {prompt}", f"tokens a step over {prompt}"
    return (
        Gate(f"prompts-{kind}", ask, "prompts", f"{prompt} answered; shown only when one is not", wanted),
        Gate(f"acceptance-{kind}", ask, "ratio", f"share of {rate}", wanted, margin=drop, alone=True),
        Gate(f"mean-acceptance-length-{kind}", ask, "tokens", length, wanted, margin=drop, alone=True),
        Gate(f"tokens-per-second-{kind}", ask, "tok/s", f"speed over {prompt}", wanted, margin=slower, alone=True),
    )


def _streams(asked: Gates) -> bool:
    return asked.streaming or asked.floors.max_ttft_s is not None


# In the order in which they are asked; the first that fails ends it.
GATES: tuple[Gate, ...] = (
    Gate("ready", None, "s", "`/health` is 200 within the load deadline, from our own container", when="start"),
    Gate("alive", None, "", "unit and container stay the same throughout gates and soak"),
    Gate("burst", burst, "requests", "simultaneous requests are all answered", lambda g: g.burst is not None, "soak"),
    Gate(
        "acceptance-burst",
        burst,
        "ratio",
        "share of drafted tokens accepted during the burst, other clients' included",
        lambda g: g.burst is not None,
        "soak",
    ),
    Gate("health", health, "HTTP", "`/health` is 200"),
    Gate("identity", identity, "differences", "container, `/version`, model root and length are the release's"),
    Gate("gpu", gpu, "GPUs", "the container sees the GPU", lambda g: g.gpu, blames="host"),
    Gate("short-chat", exchanges.short_chat, "tokens", "a chat returns text, ends properly and leaks no control token"),
    Gate("streaming", exchanges.streaming, "deltas", "a stream has text, usage and `[DONE]`", _streams),
    Gate(
        "ttft",
        exchanges.streaming,
        "s",
        "time to the first token of that stream",
        _streams,
        margin="max_ttft_rise",
        worse="higher",
        alone=True,
    ),
    Gate(
        "reasoning", exchanges.reasoning, "characters", "thinking is returned in its own field", lambda g: g.reasoning
    ),
    Gate(
        "tool-call",
        exchanges.tool_call,
        "calls",
        "a tool call is returned as `tool_calls` with JSON",
        lambda g: g.tool_call,
    ),
    Gate("image", exchanges.image, "tokens", "a picture is accepted and described", lambda g: g.image),
    *_acceptance_rows("short", _SHORT, "three coding prompts", lambda _: True),
    *_acceptance_rows("long", _LONG, "one long prompt", lambda g: g.long is not None),
    *_acceptance_rows("very-long", _VERY_LONG, "one very long prompt", lambda g: g.very_long is not None),
    Gate(
        "sampling",
        exchanges.sampling,
        "s",
        "a chat with the model's own sampling is answered, before any client sends one",
    ),
    Gate(
        "control-tokens",
        exchanges.control_tokens,
        "tokens",
        "none of the model's control tokens in any answer so far",
        lambda g: bool(g.control_tokens),
    ),
    Gate(
        "memory-available",
        available,
        "GiB",
        "memory left for the host beside the loaded engine",
        lambda g: g.limits.min_available_gib is not None,
        blames="host",
    ),
    Gate(
        "power",
        power,
        "W",
        "the GPU draws power while it works; if it is busy at low clocks and low power, the supply is wedged",
        lambda g: g.limits.min_power_w is not None,
        blames="host",
    ),
    Gate("health-after", _AFTER, "HTTP", "`/health` is still 200 after all other gates"),
)


def all_gates(subject: Subject, *, soaking: bool = False) -> Iterator[GateResult]:
    """Every gate in order, one at a time: whoever reads stops at the first that failed."""
    asked: set[Asker] = set()
    for gate in GATES:
        if gate.ask is None or gate.ask in asked or not gate.wanted(subject.release.gates):
            continue
        if gate.when == "soak" and not soaking:
            continue
        asked.add(gate.ask)
        alone = frozenset(row.id for row in GATES if row.ask is gate.ask and row.alone)
        yield from asking.results(subject, gate.ask, alone)

"""The table of gates, and what a gate's figure is worth on a host that serves others meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate.worker import DONE, REVERTED
from sparknode.base.http import Answer, Request
from sparknode.gates.prompts import burst_prompts
from sparknode.gates.table import GATES
from sparknode.state import journal
from tests.unit.sparknode.acting import activate
from tests.unit.sparknode.builders import WATCH, release
from tests.unit.sparknode.gates.test_exchanges import EVERYTHING, FULL, Capable, call, events, on, streamed
from tests.unit.sparknode.world import Engine, World

ROOT = Path(__file__).parents[4]
WATCHED = release("watched-full", **EVERYTHING, watch={**WATCH, "min_acceptance_rate": 0.05})


def figures(run: Any) -> dict[str, Any]:
    return journal.attempts(run.records)[0].forth.figures


# The table.


def test_a_whole_activation_gives_a_figure_for_every_gate_of_the_table(serving: World) -> None:
    on(serving)

    found = set(figures(activate(serving, FULL)))

    shown_only_when_they_fail = {"alive", "prompts-short", "prompts-long", "prompts-very-long"}
    assert found == {gate.id for gate in GATES} - shown_only_when_they_fail


def test_each_gate_is_in_the_documentation_word_for_word() -> None:
    text = (ROOT / "docs/activation.md").read_text()
    for gate in GATES:
        compared = f"`{gate.margin}`" if gate.margin else ""
        assert f"| `{gate.id}` | {gate.about} | {gate.when} | {gate.blames} | {compared} |\n" in text


def test_the_margins_of_the_canary_are_those_that_profiles_have() -> None:
    from sparkfleet.catalog.rows import Margins

    assert {gate.margin for gate in GATES if gate.margin} == set(Margins.model_fields)


def test_what_is_timed_or_counted_over_the_engine_is_what_the_canary_is_compared_by() -> None:
    assert {gate.id for gate in GATES if gate.alone} == {gate.id for gate in GATES if gate.margin}


@dataclass(frozen=True)
class Fault:
    """A wrong answer to the requests of one kind that hold some words, or another acceptance or pace for them."""

    kind: str
    words: str = ""
    answer: Any = None
    accepted: float = 60.0
    takes_s: float = 0.0


class Faulty(Capable):
    """An engine with a fault that shows so many times."""

    def __init__(self, world: World, fault: Fault, times: float = math.inf) -> None:
        super().__init__(world)
        self.fault, self.left = fault, times

    def __call__(self, asked: dict[str, Any]) -> Answer:
        fault = self.fault
        hit = self.kind_of(asked) == fault.kind and fault.words in str(asked["messages"]) and self.left > 0
        self.left -= hit
        self.wrong = {fault.kind: fault.answer} if hit and fault.answer else {}
        if hit:
            self.world.clock += fault.takes_s
            self.world.counters["accepted_tokens"] += fault.accepted - 60.0
        return super().__call__(asked)


SILENT = {"content": ""}
FAULTS: dict[str, Fault] = {
    "short-chat": Fault("chat", "Name three colours", SILENT),
    "streaming": Fault("stream", answer=streamed(events({"content": "a"}, done=False))),
    "ttft": Fault("stream", answer=streamed(events({"content": "a"}), first_s=2.5)),
    "reasoning": Fault("reasoning", answer={"content": "Let me think. 9"}),
    "tool-call": Fault("tools", answer=call("other")),
    "image": Fault("image", answer=Answer(400, b"no pictures")),
    "prompts-short": Fault("chat", "merge_intervals", SILENT),
    "acceptance-short": Fault("chat", "merge_intervals", accepted=-60.0),
    "tokens-per-second-short": Fault("chat", "merge_intervals", takes_s=4.0),
    "prompts-long": Fault("chat", "The file above", SILENT),
    "acceptance-long": Fault("chat", "The file above", accepted=0.0),
    "control-tokens": Fault("reasoning", answer={"content": "9", "reasoning": "hm <|think|>"}),
    "sampling": Fault("sampled", "Name three colours", Answer(500, b"no kernel")),
    "burst": Fault("sampled", "records by their", Answer(500, b"no kernel")),
    "acceptance-burst": Fault("sampled", "records by their", accepted=-300.0),
}


@pytest.mark.parametrize("gate", FAULTS)
def test_a_wrong_answer_fails_the_gate_that_is_for_it_after_it_was_asked_twice(serving: World, gate: str) -> None:
    serving.stage(FULL, Engine(chat=Faulty(serving, FAULTS[gate])))

    run = activate(serving, FULL)

    assert run.code == REVERTED
    assert run.last["error"].startswith(f"{gate}: "), run.last["error"]
    assert next(row for row in GATES if row.id == gate).blames == "release"
    assert journal.known_bad(run.records)[FULL["id"]]["gate"] == gate
    assert ("asked twice" in run.last["error"]) == (gate != "control-tokens")


@pytest.mark.parametrize("gate", [gate for gate in FAULTS if gate != "control-tokens"])
def test_a_gate_that_fails_once_condemns_nothing(serving: World, gate: str) -> None:
    engine = Faulty(serving, FAULTS[gate], times=1)
    serving.stage(FULL, Engine(chat=engine))

    run = activate(serving, FULL)

    assert engine.left == 0
    assert run.code == DONE, run.last["error"]


def test_every_gate_that_the_release_may_fail_has_its_fault_here() -> None:
    elsewhere = {
        "ready": "test_going_back",
        "alive": "test_going_back",
        "identity": "test_going_back",
        "health": "below",
        "health-after": "below",
        # The same measure as the rate beside it, or the same function over another prompt.
        "mean-acceptance-length-short": "test_engine",
        "mean-acceptance-length-long": "test_engine",
        "mean-acceptance-length-very-long": "test_engine",
        "acceptance-very-long": "acceptance-long",
        "prompts-very-long": "prompts-long",
        "tokens-per-second-long": "only measured",
        "tokens-per-second-very-long": "only measured",
    }
    assert {gate.id for gate in GATES if gate.blames == "release"} == {*FAULTS, *elsewhere}


# Between the two askings it is looked whether the port is still open.
@pytest.mark.parametrize(("failures", "code"), [(2, DONE), (3, REVERTED)])
def test_health_is_asked_twice_as_well(serving: World, failures: int, code: int) -> None:
    on(serving)
    left, real = [failures], serving.http

    def http(request: Request) -> Answer:
        chatted = any(asked.path == "/v1/chat/completions" for asked in serving.requests)
        if request.path == "/health" and serving.running == FULL["id"] and not chatted and probing(serving) and left[0]:
            left[0] -= 1
            return Answer(503, b"busy")
        return real(request)

    serving.http = http  # type: ignore[method-assign]

    assert activate(serving, FULL).code == code


def probing(world: World) -> bool:
    return str(journal.read(world.paths)[-1]["state"]) == journal.PROBING


# Other people's traffic.


def crowd(world: World, requests: float = 10.0) -> None:
    """Clients that never stop."""
    world.requests_running, world.drain_rate = requests, 0.0


def beside(world: World, answer: Callable[[dict[str, Any]], Answer], *, tokens: int, accepted: int) -> Engine:
    """An engine that serves clients during each of our requests, at a pace of their own and with an own acceptance."""

    def chat(asked: dict[str, Any]) -> Answer:
        world.clock += 3.0
        world.beat += 64 + tokens
        world.counters["drafts"] += 100
        world.counters["draft_tokens"] += 1000
        world.counters["accepted_tokens"] += accepted
        return answer(asked)

    return Engine(chat=chat)


TRAFFIC: dict[str, tuple[dict[str, int], int]] = {
    # What clients do to the host, and how many requests show at each look.
    "ten clients without a pause": ({"tokens": 2000, "accepted": 180}, 10),
    "clients that come and go between two looks": ({"tokens": 2000, "accepted": 180}, 0),
    "clients of prose in a queue": ({"tokens": 300, "accepted": 60}, 40),
}


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_a_busy_host_is_never_called_bad_for_being_busy(serving: World, traffic: str) -> None:
    served, requests = TRAFFIC[traffic]
    crowd(serving, requests)
    late = streamed(events({"content": "a"}, {"content": "b"}), first_s=8.0)
    healthy = Capable(serving, stream=late)
    serving.stage(WATCHED, beside(serving, healthy, **served))

    run = activate(serving, WATCHED)

    assert run.code == DONE, run.last["error"]
    found = figures(run)
    for gate in ("ttft", "acceptance-short", "mean-acceptance-length-short", "tokens-per-second-short"):
        assert (found[gate]["verdict"], found[gate]["threshold"]) == ("not-judged", None), gate
        assert found[gate]["figure"] is not None
    assert "not judged, as " in "\n".join(run.lines)
    said = run.last["note"].removeprefix(f"release {WATCHED['id']} is verified; NOT JUDGED, as other requests ran at ")
    never, _, judged = said.removeprefix("each look: ").partition("; ")
    assert set(never.split(", ")) == {gate for gate, figure in found.items() if figure["verdict"] == "not-judged"}
    assert judged == "of the acceptance only that it is no collapse (at least 5 %)"


def test_a_collapse_is_found_whatever_clients_ask(serving: World) -> None:
    crowd(serving)
    serving.stage(WATCHED, beside(serving, Capable(serving), tokens=2000, accepted=-60))

    run = activate(serving, WATCHED)

    assert run.code == REVERTED
    assert "acceptance-short: 0.0 % of drafted tokens accepted" in run.last["error"]
    assert journal.known_bad(run.records)[WATCHED["id"]]["gate"] == "acceptance-short"


def test_a_calm_moment_is_waited_for_and_judged_in(serving: World) -> None:
    on(serving)
    serving.requests_running, serving.drain_rate = 0.0, 1.0
    real, came = serving.http, [False]

    def http(request: Request) -> Answer:
        if request.path == "/v1/chat/completions" and b"merge_intervals" in (request.body or b"") and not came[0]:
            came[0], serving.requests_running = True, 3.0
        return real(request)

    serving.http = http  # type: ignore[method-assign]

    run = activate(serving, FULL)

    assert (run.code, came[0]) == (DONE, True)
    assert run.last["note"] == f"release {FULL['id']} is verified"
    assert figures(run)["acceptance-short"] == {"figure": 0.6, "threshold": 0.3, "unit": "ratio", "verdict": "pass"}


def test_a_figure_that_was_judged_in_a_calm_round_stays() -> None:
    way = journal.Way(
        [
            {"state": "probing", "gate": {"name": "ttft", "figure": 0.1, "verdict": "pass"}},
            {"state": "soaking", "gate": {"name": "ttft", "figure": 8.0, "verdict": "not-judged"}},
        ]
    )
    assert way.figures == {"ttft": {"figure": 0.1, "verdict": "pass"}}
    assert journal.Way(way.records[1:]).figures["ttft"]["figure"] == 8.0


def test_a_request_that_waits_for_others_is_not_held_against_the_release(serving: World) -> None:
    crowd(serving)

    def chat(_: dict[str, Any]) -> Answer:
        serving.clock += 120.0
        serving.beat += 5000
        return Answer(None, error="no answer within 120 s")

    serving.stage(WATCHED, Engine(chat=chat))

    run = activate(serving, WATCHED)

    assert run.code == REVERTED
    assert "10 other requests ran or waited meanwhile" in run.last["error"]
    assert journal.known_bad(run.records) == {}


def test_an_engine_that_answers_nobody_is_blamed(serving: World) -> None:
    def chat(_: dict[str, Any]) -> Answer:
        serving.clock += 120.0
        serving.requests_running, serving.drain_rate = 1.0, 0.0
        return Answer(None, error="no answer within 120 s")

    serving.stage(WATCHED, Engine(chat=chat))

    assert activate(serving, WATCHED).code == REVERTED
    assert journal.known_bad(journal.read(serving.paths))[WATCHED["id"]]["gate"] == "short-chat"


# The burst and the model's own sampling.


def test_a_collapse_under_concurrency_is_found_before_the_commit(serving: World) -> None:
    collapsed = [False]

    class Fragile(Capable):
        def __call__(self, asked: dict[str, Any]) -> Answer:
            collapsed[0] |= "temperature" not in asked and "records by their" in str(asked["messages"])
            if collapsed[0]:
                self.world.counters["accepted_tokens"] -= 60
            return super().__call__(asked)

    serving.stage(FULL, Engine(chat=Fragile(serving)))

    run = activate(serving, FULL)

    assert run.code == REVERTED
    assert "soaking" in run.states
    assert "0.0 % of drafted tokens accepted" in run.last["error"]


def test_a_request_with_the_model_s_own_sampling_is_made_before_the_commit(serving: World) -> None:
    chats = on(serving)

    activate(serving, FULL)

    assert [asked for asked in chats.asked if "temperature" not in asked]
    assert [asked for asked in chats.asked if asked.get("temperature") == 0]


def test_the_prompts_of_a_burst_differ_in_kind_and_length() -> None:
    prompts = burst_prompts(8)

    assert len(set(prompts)) == 8
    assert len({len(prompt) // 1000 for prompt in prompts}) >= 4


# A call that cannot be forced.


@pytest.mark.parametrize("unforced", [True, False])
def test_a_gate_that_cannot_force_a_call_says_so(serving: World, unforced: bool) -> None:
    document = release("tools", gates__tool_call=True, gates__tool_call_unforced=unforced)
    chats = Capable(serving, tools={"content": "It is sunny."})
    serving.stage(document, Engine(chat=chats))

    error = activate(serving, document).last["error"]

    assert ("this engine's tool parser cannot force a call, so the gate only asked twice" in error) == unforced
    assert ("passes `tool_choice` on to the model" in error) != unforced
    choices = {str(asked["tool_choice"]) for asked in chats.asked if "tools" in asked}
    assert (choices == {"auto"}) == unforced


def test_a_model_that_calls_only_when_told_to_passes(serving: World) -> None:
    document = release("tools", gates__tool_call=True, gates__tool_call_unforced=True)

    def shy(asked: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        return message if "Do not answer in text" in str(asked["messages"]) else {"content": "Sunny."}

    serving.stage(document, Engine(chat=Capable(serving, tools=shy)))

    assert activate(serving, document).code == DONE

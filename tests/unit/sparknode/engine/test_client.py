"""What the engine's answers mean, out of recorded ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.base import parse
from sparknode.base.http import Answer
from sparknode.base.shape import Node
from sparknode.engine import client
from sparknode.engine.client import Counters
from sparknode.gates.prompts import long_prompt
from sparknode.gates.table import is_version, judge, served_differences
from sparknode.state.release import Floors
from sparknode.state.releases import from_node
from tests.unit.sparknode.builders import release

FIXTURES = Path(__file__).parents[3] / "fixtures/engine"
FLOORS = Floors(max_tokens=256, prompt_tokens=None, min_acceptance_rate=0.3, min_mean_acceptance_length=3.0)
NO_FLOORS = Floors(max_tokens=256, prompt_tokens=None, min_acceptance_rate=None, min_mean_acceptance_length=None)


def recorded(name: str) -> Answer:
    head, _, body = (FIXTURES / name).read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    return Answer(int(head.split()[1]), body)


def counted(name: str) -> Counters | None:
    return client.counters(parse.metrics((FIXTURES / name).read_text()))


def test_the_counters_of_a_fresh_engine_are_zero() -> None:
    found = counted("metrics-fresh.txt")

    assert found is not None
    assert (found.drafts, found.draft_tokens, found.accepted) == (0.0, 0.0, 0.0)


def test_the_recorded_counters_are_sixty_percent_and_seven_tokens() -> None:
    before, after = counted("metrics-fresh.txt"), counted("metrics-0.22.1-offline.txt")
    assert before is not None
    assert after is not None

    rate, length = judge("short", after.since(before), FLOORS)

    assert (rate.figure, rate.verdict) == (0.6, "pass")
    assert (length.figure, length.verdict) == (7.0, "pass")
    assert "by position 100%, 100%, 100%, 100%, 100%, 100%, 0%" in rate.detail


@pytest.mark.parametrize(
    ("before", "after", "verdict", "detail"),
    [
        (
            Counters(10, 100, 50),
            Counters(20, 200, 80),
            "pass",
            "30.0 % of drafted tokens accepted, expected at least 30.0 %",
        ),
        (
            Counters(10, 100, 50),
            Counters(20, 200, 79),
            "fail",
            "29.0 % of drafted tokens accepted, expected at least 30.0 %",
        ),
        (
            Counters(10, 100, 50),
            Counters(20, 200, 50),
            "fail",
            "0.0 % of drafted tokens accepted, expected at least 30.0 %",
        ),
        (Counters(10, 116, 50), Counters(26, 232, 108), "pass", "50.0 %"),
        (Counters(10, 100, 50), Counters(10, 100, 50), "no-data", "the engine drafted nothing while it answered"),
        (Counters(10, 100, 50), Counters(1, 10, 5), "no-data", "the engine's counters went back"),
    ],
    ids=["at the floor", "below it", "collapse", "fewer drafted than asked", "no drafts", "restarted"],
)
def test_acceptance_is_judged_by_what_the_counters_moved(
    before: Counters, after: Counters, verdict: str, detail: str
) -> None:
    rate, _ = judge("short", after.since(before), FLOORS)

    assert rate.verdict == verdict
    assert detail in rate.detail


def test_no_data_fails_where_a_floor_asks_for_it_and_only_there() -> None:
    assert all(result.failed for result in judge("short", None, FLOORS))
    assert not any(result.failed for result in judge("short", None, NO_FLOORS))


def test_without_a_floor_zero_percent_is_only_measured() -> None:
    rate, length = judge("short", Counters(10, 100, 0), NO_FLOORS)

    assert (rate.figure, rate.failed, length.figure, length.failed) == (0.0, False, 1.0, False)


def test_engines_are_added_up() -> None:
    text = "\n".join(
        f'vllm:spec_decode_num_{name}_total{{engine="{number}"}} 5'
        for name in ("drafts", "draft_tokens", "accepted_tokens")
        for number in (0, 1)
    )

    found = client.counters(parse.metrics(text))

    assert found is not None
    assert found.drafts == 10.0


def test_requests_in_flight() -> None:
    assert client.in_flight(parse.metrics("vllm:num_requests_running 2\nvllm:num_requests_waiting 1\n")) == 3.0
    assert client.in_flight([]) is None


def chat(**changes: Any) -> Answer:
    message = {"role": "assistant", "content": "ready. ready.", "reasoning": None, **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": changes.pop("finish_reason", "length")}
    usage = {"prompt_tokens": 49, "completion_tokens": changes.pop("completion_tokens", 64), "total_tokens": 113}
    return Answer(200, json.dumps({"choices": [choice], "usage": usage, **changes}).encode())


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (chat(), None),
        (chat(finish_reason="stop"), None),
        (chat(message={"content": None, "reasoning": "thinking"}), None),
        (chat(message={"content": None, "tool_calls": [{"id": "1"}]}, finish_reason="tool_calls"), None),
        (chat(finish_reason="abort"), "it ended with 'abort'"),
        (chat(completion_tokens=0), "0 tokens and no text"),
        (chat(message={"content": "  "}), "64 tokens and no text"),
        (chat(choices=[]), "HTTP 200, but no chat completion"),
        (chat(usage=None), "HTTP 200, but no chat completion"),
        (Answer(200, b"[" * 100_000), "HTTP 200, but no chat completion"),
        (Answer(200, b""), "HTTP 200, but no chat completion"),
        (Answer(500, b"cannot schedule new futures after shutdown"), "HTTP 500: cannot schedule new futures"),
        (Answer(401, b'{"error":"Unauthorized"}'), "HTTP 401: "),
        (Answer(None, error="no answer within 120 s"), "no answer within 120 s"),
        (recorded("chat-404.http"), "HTTP 404: "),
        (recorded("chat-400-badjson.http"), "HTTP 400: "),
    ],
)
def test_what_counts_as_a_chat(answer: Answer, problem: str | None) -> None:
    found = client.read_chat(answer, 1.0)

    assert (found.problem or "").startswith(problem or "")
    assert (found.problem is None) == (problem is None)


@given(
    st.binary(max_size=100)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "usage", "content", "reasoning", "prompt_tokens"]), inner
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_makes_reading_a_chat_raise(body: bytes) -> None:
    assert client.read_chat(Answer(200, body), 1.0).problem


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        ("0.22.1", True),
        ("0.22.1+cpu", True),
        ("0.22.1.dev3+g123", True),
        ("0.22.1rc1", True),
        ("0.22.10", False),
        ("0.22.1.1", False),
        ("0.22.2", False),
        ("1.0.22.1", False),
        ("", False),
    ],
)
def test_a_version_may_have_a_suffix_and_nothing_else(found: str, fits: bool) -> None:
    assert is_version(found, "0.22.1") is fits


def test_recorded_models_against_a_release() -> None:
    names = ["gemma4-aeon-uncensored", "gemma4-fast", "gemma4-deep"]
    wanted = from_node(Node(release("tag", serve__served_names=names), "release"))
    cards = json.loads(recorded("models.http").body)["data"]

    assert served_differences(wanted, cards) == []
    assert served_differences(wanted, cards[:1]) == [
        "/v1/models does not serve 'gemma4-fast' (it serves gemma4-aeon-uncensored)",
        "/v1/models does not serve 'gemma4-deep' (it serves gemma4-aeon-uncensored)",
    ]


@pytest.mark.parametrize("characters_per_token", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("tokens", [1, 100, 2500])
def test_a_long_prompt_is_long_enough_and_not_much_longer(tokens: int, characters_per_token: int) -> None:
    text = long_prompt(tokens, lambda text: len(text) // characters_per_token)

    count = len(text) // characters_per_token
    block = 420 // characters_per_token
    assert tokens <= count <= tokens * 1.3 + 3 * block


def test_a_long_prompt_without_a_tokenizer_is_rather_too_long() -> None:
    assert len(long_prompt(2500, lambda _: None)) >= 2500 * 4
